-- Who may use the API, and for what. A key's secret is nowhere: what is kept is the SHA-256 of the whole key, which
-- needs no salt and no slow hash, since nobody can guess 190 random bits. Rows stay: the audit trail names keys by id.
CREATE TABLE api_keys (
  id           text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9a-z]{12}$'),
  -- In hexadecimal.
  digest       text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
  name         text NOT NULL CHECK (name <> ''),
  scopes       text[] NOT NULL CHECK (cardinality(scopes) > 0),
  created_at   timestamptz NOT NULL,
  -- Null: does not expire.
  expires_at   timestamptz,
  revoked_at   timestamptz,
  -- To the minute or so.
  last_used_at timestamptz,
  -- By rotation: the key that follows.
  replaced_by  text COLLATE "C" REFERENCES api_keys (id)
);
