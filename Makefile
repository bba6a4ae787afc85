# Every verb of the project. STACK chooses the environment: development (default), staging or production.
STACK ?= development
# What `make bench` measures: compare (default), limits, memory, start, scale or deploys. ROWS is how many loans it has.
BENCH ?= compare
TS := node --import tsx

.DEFAULT_GOAL := help
.PHONY: help up preview down repair status smoke alerts silence drift logs releases rollback seed retention upkeep readiness rotate maintenance canary scale autoscale keep load chaos api-key certificate test bench bench-large check format screenshots images-offline pin-images clean \
  image scan sbom publish workflows pipeline repository-settings hooks

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel error
	@touch $@

up: node_modules/.package-lock.json ## Bring the environment up (STACK=development)
	@$(TS) infra/main.ts up $(STACK)

preview: node_modules/.package-lock.json ## What `make up` would change, and what it does to running data
	@$(TS) infra/main.ts preview $(STACK)

down: node_modules/.package-lock.json ## Take the environment down; its database is kept
	@$(TS) infra/main.ts down $(STACK)

repair: node_modules/.package-lock.json ## After a deploy that was killed or cut off: lock, state, half-made containers
	@$(TS) infra/main.ts repair $(STACK)

status: node_modules/.package-lock.json ## What runs, and where
	@$(TS) infra/main.ts status $(STACK)

smoke: node_modules/.package-lock.json ## Does it answer its users? Asked from this machine, by its name, through TLS
	@$(TS) infra/main.ts smoke $(STACK)

alerts: node_modules/.package-lock.json ## Which alerts fire, or will, worst first, with their runbooks
	@$(TS) infra/main.ts alerts $(STACK)

silence: node_modules/.package-lock.json ## Tell nobody of an alert: ALERT= FOR=2h WHY=; END=id; alone: what is silenced
	@$(TS) infra/main.ts silence $(STACK) $(if $(ALERT),--alert '$(ALERT)') $(if $(FOR),--for '$(FOR)') \
	  $(if $(WHY),--why '$(WHY)') $(if $(END),--end '$(END)')

drift: node_modules/.package-lock.json ## What is not as it was deployed, and the remedy (JSON=1); exit code 1 when there is any
	@$(TS) infra/main.ts drift $(STACK) $(if $(JSON),--json)

logs: node_modules/.package-lock.json ## All logs as one, in order: [REQUEST=id] [LEVEL=warn] [CONTAINER=api] [SINCE=15m] [FOLLOW=1] [JSON=1]
	@$(TS) infra/main.ts logs $(STACK) $(if $(REQUEST),--request '$(REQUEST)') $(if $(LEVEL),--level '$(LEVEL)') \
	  $(if $(CONTAINER),--container '$(CONTAINER)') $(if $(SINCE),--since '$(SINCE)') $(if $(FOLLOW),--follow) $(if $(JSON),--json)

releases: node_modules/.package-lock.json ## What was deployed, when, and what became of it
	@$(TS) infra/main.ts releases $(STACK)

rollback: node_modules/.package-lock.json ## Back to the release before, or to another one (TO=release)
	@$(TS) infra/main.ts rollback $(STACK) $(TO)

seed: node_modules/.package-lock.json ## Load the five sample loans
	@$(TS) infra/main.ts seed $(STACK)

retention: node_modules/.package-lock.json ## Borrowers of loans closed years ago become pseudonyms (DRY_RUN=1: only say which)
	@$(TS) infra/main.ts retention $(STACK) $(if $(DRY_RUN),--dry-run)

rotate: node_modules/.package-lock.json ## A new generated secret, by an ordinary `up` (SECRET=databasePassword|grafanaPassword|…)
	@$(TS) infra/main.ts rotate $(STACK) $(SECRET)

upkeep: node_modules/.package-lock.json ## Sizes, dead rows and vacuums of the database (VACUUM=1: vacuum and analyze all of it, beside its users)
	@$(TS) infra/main.ts upkeep $(STACK) $(if $(VACUUM),--vacuum)

readiness: node_modules/.package-lock.json ## Is it ready for production? Each check with its remedy; exit code 1 when one fails
	@$(TS) infra/main.ts readiness $(STACK)

canary: node_modules/.package-lock.json ## A release on trial: IMAGE= [PERCENT=10] [WINDOW=5m] [ERRORS=1] [LATENCY=1.5]; alone: watch on; PROMOTE=1; ABORT=1
	@$(TS) infra/main.ts canary $(STACK) $(if $(IMAGE),--image '$(IMAGE)') $(if $(PERCENT),--percent '$(PERCENT)') \
	  $(if $(WINDOW),--window '$(WINDOW)') $(if $(ERRORS),--errors '$(ERRORS)') $(if $(LATENCY),--latency '$(LATENCY)') \
	  $(if $(PROMOTE),--promote) $(if $(ABORT),--abort)

scale: node_modules/.package-lock.json ## Another number of API containers (REPLICAS=3)
	@$(TS) infra/main.ts scale $(STACK) '$(REPLICAS)'

autoscale: node_modules/.package-lock.json ## How many API containers the load wants, and why (APPLY=1: make it so)
	@$(TS) infra/main.ts autoscale $(STACK) $(if $(APPLY),--apply)

keep: node_modules/.package-lock.json ## Start again what was killed, until told to end: for a service manager
	@exec $(TS) infra/main.ts keep $(STACK)

load: node_modules/.package-lock.json ## A load, with a report: [RATE=50] [DURATION=60s] [CONNECTIONS=64] [MIX=2:1] [DRY_RUN=1]; RAMP=1 [MOST=] finds the capacity, APPLY=1 writes it
	@exec $(TS) infra/main.ts load $(STACK) $(if $(RATE),--rate '$(RATE)') $(if $(DURATION),--duration '$(DURATION)') \
	  $(if $(CONNECTIONS),--connections '$(CONNECTIONS)') $(if $(MIX),--mix '$(MIX)') $(if $(DRY_RUN),--dry-run) \
	  $(if $(RAMP),--ramp) $(if $(MOST),--most '$(MOST)') $(if $(APPLY),--apply)

chaos: node_modules/.package-lock.json ## Faults under load, with a report: [EXPERIMENT=a,b] [RATE=30] [P95=200ms]; LIST=1 names them; UNDO=1 takes back what was left
	@exec $(TS) infra/main.ts chaos $(STACK) $(if $(EXPERIMENT),--experiment '$(EXPERIMENT)') $(if $(RATE),--rate '$(RATE)') \
	  $(if $(P95),--p95 '$(P95)') $(if $(LIST),--list) $(if $(UNDO),--undo)

maintenance: node_modules/.package-lock.json ## Close the entrance with 503 (ON=1), open it (OFF=1), or say which; operators pass
	@$(TS) infra/main.ts maintenance $(STACK) $(if $(ON),on) $(if $(OFF),off)

api-key: node_modules/.package-lock.json ## API keys: NAME= SCOPES= [DAYS=], LIST=1, ROTATE=id [HOURS=], REVOKE=id
	@$(TS) infra/main.ts api-key $(STACK) $(KEY_ARGUMENTS)

KEY_ARGUMENTS = $(if $(LIST),list,$(if $(REVOKE),revoke --id '$(REVOKE)',$(if $(ROTATE),rotate --id '$(ROTATE)' $(if \
  $(HOURS),--overlap-hours '$(HOURS)'),$(if $(SCOPES),create --name '$(NAME)' --scopes '$(SCOPES)' $(if \
  $(DAYS),--expires-days '$(DAYS)')))))

certificate: node_modules/.package-lock.json ## Make or renew the certificate in ssl/
	@$(TS) ssl/main.ts

check: node_modules/.package-lock.json ## Format, lint, migrations and types
	npx prettier --check --log-level warn .
	npx eslint .
	$(TS) tests/migrations/lint.ts
	npx tsc --noEmit
	npx tsc --project app/http/browser
	npx tsc --project infra/exporters

format: node_modules/.package-lock.json ## Format all files
	npx prettier --write --log-level warn .

test: check ## Everything that can run on this machine; skips say why
	tests/run

bench: node_modules/.package-lock.json ## Measure against others, side by side (BENCH=compare|limits|memory|start|scale|deploys; HOG=1: deploys on a busy host)
	@$(TS) bench/main.ts $(BENCH)

bench-large: node_modules/.package-lock.json ## The same with ten million loans
	@ROWS=10000000 $(TS) bench/main.ts $(BENCH)

screenshots: node_modules/.package-lock.json ## Pictures of the pages for the documents; wants Chromium and Prometheus
	UPDATE_SCREENSHOTS=1 npx --no-install jest tests/browser/sre.test.ts

images-offline: node_modules/.package-lock.json ## Test-only images from Debian packages, for a machine without registry
	tests/images/build

# The steps of the pipeline, as workflows run them. What they need is given by variables: pipeline/main.ts reads them.
image: node_modules/.package-lock.json ## Build the image once, into .local/image (STACK=, DOCKERFILE=, BUILD_ARGS=)
	@$(TS) pipeline/main.ts image

scan: node_modules/.package-lock.json ## Trivy on that image and on the sources; CRITICAL and HIGH fail (OFFLINE=1: no vulnerabilities)
	@PATH="$(CURDIR)/.local/tools/bin:$$PATH" SKIP=tests/images $(TS) pipeline/main.ts scan

sbom: node_modules/.package-lock.json ## List of what is in that image, as SPDX
	@PATH="$(CURDIR)/.local/tools/bin:$$PATH" $(TS) pipeline/main.ts sbom

publish: node_modules/.package-lock.json ## Push that very image (IMAGE=registry/me/name [TAG=] [LATEST=never]); digests are compared
	@$(TS) pipeline/main.ts publish

workflows: node_modules/.package-lock.json ## Lint and tests of .github: installs its linters into .local/tools
	@tests/workflows/run

pipeline: node_modules/.package-lock.json ## Make what is generated: .github/pipeline.js, docs/PIPELINE-REFERENCE.md; RECORD=1: the interface, at a release
	@$(TS) tests/workflows/generate.ts $(if $(RECORD),--record)

repository-settings: node_modules/.package-lock.json ## Environments, variables, secrets, branch protection of the repository (APPLY=1 sets them)
	@$(TS) pipeline/main.ts repository-settings

hooks: ## Check format, lint and keys at every commit of this clone
	git config core.hooksPath .githooks

pin-images: node_modules/.package-lock.json ## Write the registry's digest beside each image version
	@$(TS) infra/main.ts pin-images

clean: ## Remove what was built; keeps state, certificates and databases
	rm -rf node_modules dist coverage
