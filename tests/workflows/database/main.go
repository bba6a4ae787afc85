// Command database writes advisories.json as the vulnerability database of Trivy (schema 2), into the directory that is
// given: the real scanner then finds real vulnerabilities on a machine that cannot fetch the real database.
package main

import (
	_ "embed"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

//go:embed advisories.json
var recorded []byte

type tree map[string]json.RawMessage

func main() {
	directory := filepath.Join(os.Args[1], "db")
	check(os.MkdirAll(directory, 0o755))
	database, err := bbolt.Open(filepath.Join(directory, "trivy.db"), 0o600, nil)
	check(err)
	var buckets map[string]tree
	check(json.Unmarshal(recorded, &buckets))
	check(database.Update(func(tx *bbolt.Tx) error {
		for name, entries := range buckets {
			bucket, err := tx.CreateBucket([]byte(name))
			check(err)
			for key, value := range entries {
				// A package's bucket holds one entry an advisory; the others hold their values.
				if name == "data-source" || name == "vulnerability" {
					check(bucket.Put([]byte(key), value))
					continue
				}
				inner, err := bucket.CreateBucket([]byte(key))
				check(err)
				var advisories tree
				check(json.Unmarshal(value, &advisories))
				for id, advisory := range advisories {
					check(inner.Put([]byte(id), advisory))
				}
			}
		}
		return nil
	}))
	check(database.Close())
	now := time.Now()
	metadata, err := json.Marshal(map[string]any{
		"Version": 2, "UpdatedAt": now, "DownloadedAt": now, "NextUpdate": now.Add(24 * time.Hour),
	})
	check(err)
	check(os.WriteFile(filepath.Join(directory, "metadata.json"), metadata, 0o600))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
