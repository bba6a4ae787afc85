# Every verb of the project. STACK chooses the environment: development (default), staging or production.
STACK ?= development
# What `make bench` measures: compare (default), limits, memory, start or scale. ROWS is how many loans it has.
BENCH ?= compare
TS := node --import tsx

.DEFAULT_GOAL := help
.PHONY: help up preview down status drift logs seed retention api-key certificate test bench bench-large check format images-offline pin-images clean

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

status: node_modules/.package-lock.json ## What runs, and where
	@$(TS) infra/main.ts status $(STACK)

drift: node_modules/.package-lock.json ## What is not as it was deployed, and the remedy (JSON=1); exit code 1 when there is any
	@$(TS) infra/main.ts drift $(STACK) $(if $(JSON),--json)

logs: node_modules/.package-lock.json ## Follow the logs of all containers
	@$(TS) infra/main.ts logs $(STACK)

seed: node_modules/.package-lock.json ## Load the five sample loans
	@$(TS) infra/main.ts seed $(STACK)

retention: node_modules/.package-lock.json ## Borrowers of loans closed years ago become pseudonyms (DRY_RUN=1: only say which)
	@$(TS) infra/main.ts retention $(STACK) $(if $(DRY_RUN),--dry-run)

api-key: node_modules/.package-lock.json ## API keys: NAME= SCOPES= [DAYS=], LIST=1, ROTATE=id [HOURS=], REVOKE=id
	@$(TS) infra/main.ts api-key $(STACK) $(KEY_ARGUMENTS)

KEY_ARGUMENTS = $(if $(LIST),list,$(if $(REVOKE),revoke --id '$(REVOKE)',$(if $(ROTATE),rotate --id '$(ROTATE)' $(if \
  $(HOURS),--overlap-hours '$(HOURS)'),$(if $(SCOPES),create --name '$(NAME)' --scopes '$(SCOPES)' $(if \
  $(DAYS),--expires-days '$(DAYS)')))))

certificate: node_modules/.package-lock.json ## Make or renew the certificate in ssl/
	@$(TS) ssl/main.ts

check: node_modules/.package-lock.json ## Format, lint and types
	npx prettier --check --log-level warn .
	npx eslint .
	npx tsc --noEmit
	npx tsc --project app/http/browser

format: node_modules/.package-lock.json ## Format all files
	npx prettier --write --log-level warn .

test: check ## Everything that can run on this machine; skips say why
	tests/run

bench: node_modules/.package-lock.json ## Measure against others, side by side (BENCH=compare|limits|memory|start|scale)
	@$(TS) bench/main.ts $(BENCH)

bench-large: node_modules/.package-lock.json ## The same with ten million loans
	@ROWS=10000000 $(TS) bench/main.ts $(BENCH)

images-offline: node_modules/.package-lock.json ## Test-only images from Debian packages, for a machine without registry
	tests/images/build

pin-images: node_modules/.package-lock.json ## Write the registry's digest beside each image version
	@$(TS) infra/main.ts pin-images

clean: ## Remove what was built; keeps state, certificates and databases
	rm -rf node_modules dist coverage
