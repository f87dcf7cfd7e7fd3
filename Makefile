# What people and CI do with this project. `make` alone explains itself.
# Everything that is not a Rust crate of the service is found or built by tests/stack/stack.sh, in a cache outside
# the checkout (${XDG_CACHE_HOME:-~/.cache}/todo-backend).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

STACK := bash tests/stack/stack.sh
STAGE := bash tests/stage.sh
SERVE := bash tests/stack/serve.sh
DENY := bash tests/stack/tool.sh cargo-deny 0.20.2 cargo-deny
CYCLONEDX := bash tests/stack/tool.sh cargo-cyclonedx 0.5.9 cargo-cyclonedx
WATCHEXEC := bash tests/stack/tool.sh watchexec-cli 2.8.0 watchexec

.PHONY: help run dapr replicas dev web check lint advisories sbom test torture bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: need-cargo ## the service alone; it uses a Dapr sidecar when there is one
	cargo run --locked

dapr: need-cargo ## Kafka, the Dapr sidecar and the service, in one command; ctrl-c stops all of it
	cargo build --locked
	@exec $(STACK) dapr "$${CARGO_TARGET_DIR:-target}/debug/todo-backend"

replicas: need-cargo ## three replicas on one PostgreSQL, with sidecars and Kafka, behind nginx; ctrl-c stops all of it
	cargo build --locked
	@exec $(STACK) replicas "$${CARGO_TARGET_DIR:-target}/debug/todo-backend"

dev: need-cargo ## the service alone, started again whenever a source file changes
	$(WATCHEXEC) --restart --watch src --watch Cargo.toml --watch .env -- cargo run --locked

web: ## the page from its sources, on an origin of its own, for the service at SERVICE_URL (http://localhost:8000)
	@$(STACK) packages
	@exec node web/serve.mjs

# In a minute: a tenth of the relay's worlds, and tests side by side, since most of them wait.
check: need-cargo ## the inner loop: format, clippy, doc links, unit and in-process tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items --quiet
	RELAY_SEEDS=1000 cargo test --locked --lib --bins --test it -- --test-threads=8

lint: need-cargo ## format, clippy, links in doc comments, licences and sources of all crates
	@$(STAGE) "cargo fmt" cargo fmt --check
	@$(STAGE) "cargo clippy" cargo clippy --locked --all-targets -- -D warnings
	@$(STAGE) "cargo doc" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	@$(STAGE) "cargo deny" $(DENY) --locked --all-features check licenses bans sources

# Not part of lint: it needs GitHub, and what it says changes without a change here.
advisories: need-cargo ## known vulnerabilities of all crates, from RustSec's database on GitHub
	@$(STAGE) "cargo deny" $(DENY) --locked --all-features check advisories

# Written beside Cargo.toml: the tool knows no other place.
sbom: need-cargo ## the crates that it is built from, as target/todo-backend.cdx.json (CycloneDX)
	@$(STAGE) "cargo cyclonedx" $(CYCLONEDX) cyclonedx --format json --spec-version 1.5 --no-build-deps --override-filename todo-backend.cdx
	@mkdir -p target && mv todo-backend.cdx.json target/

# Tests of the API that are the same on any database, and take long because they wait for clients.
WITHOUT_DATABASE := --skip connection:: --skip limits:: --skip slow_clients::

STORE_ON_POSTGRES := cargo test --locked --lib store::tests -- --test-threads=8 --include-ignored --skip on_sqlite

test: need-cargo ## everything, on the real Dapr, Kafka and PostgreSQL, and a real browser
	@$(STAGE) "tools: daprd, dapr CLI, Kafka, Postgres, Python, Chromium" $(STACK) build
	@$(STAGE) "build" cargo build --locked
	@$(STAGE) "unit and in-process tests" cargo test --locked --lib --bins --test it -- --test-threads=8
	@$(STAGE) "store on Postgres" bash tests/stack/with_postgres.sh -- $(STORE_ON_POSTGRES)
	@$(STAGE) "API on Postgres" bash tests/stack/with_postgres.sh -- cargo test --locked --test it -- --test-threads=8 --skip on_sqlite $(WITHOUT_DATABASE)
	@$(STAGE) "end-to-end tests" cargo test --locked --test e2e -- --test-threads=2 --skip proof::
	@$(STAGE) "proofs: kills, outages, linearizability" cargo test --locked --test e2e -- --test-threads=1 --nocapture proof::
	@$(STAGE) "web tests: Swagger UI, ReDoc, CORS, the document" $(SERVE) -- bash tests/web/run.sh
	@$(STAGE) "contract tests: FastAPI, schemathesis, a generated client" bash tests/contract/run.sh
	@$(STAGE) "documents: events, Docker, Compose" bash tests/docs/run.sh
	@$(STAGE) "deployment: alerts, dashboard" bash tests/deploy/run.sh

torture: export STAGE_MINUTES = 240
torture: need-cargo ## the long versions of the tests with faults
	@$(STAGE) "tools: daprd, dapr CLI, Kafka, Postgres, Python, Chromium" $(STACK) build
	@$(STAGE) "relay, many seeds" env RELAY_SEEDS=200000 cargo test --locked --lib dispatcher
	@$(STAGE) "damaged inputs, many" env FUZZ_INPUTS=20000 cargo test --locked --release --test it -- fuzz::
	@$(STAGE) "store on Postgres, serializable by default" bash tests/stack/with_postgres.sh -c default_transaction_isolation=serializable -- $(STORE_ON_POSTGRES)
	@$(STAGE) "proofs, long" env TORTURE=1 cargo test --locked --test e2e -- --test-threads=1 --nocapture proof::
	@$(STAGE) "streams, many" env TORTURE=1 cargo test --locked --test e2e -- --test-threads=1 --nocapture streams::
	@$(STAGE) "devices that edit offline, long" env TORTURE=1 $(SERVE) -- bash tests/web/run.sh --test-name-pattern="devices that edit"
	@$(STAGE) "disks that fill up, fail and break off, long" env TORTURE=1 cargo test --locked --test e2e -- --test-threads=2 disk::

bench: need-cargo ## speed beside a bare actix handler and PocketBase; QUICK=1 in 2 minutes (docs/performance.md)
	@$(STAGE) "build" cargo bench --locked --no-run
	@$(STAGE) "bench" env QUICK="$(QUICK)" SAVE="$(SAVE)" cargo bench --locked --bench compare
	@[[ "$(QUICK)" == 1 ]] || $(STAGE) "lists and searches" cargo bench --locked --bench lists

.PHONY: need-cargo
need-cargo:
	@command -v cargo >/dev/null || { echo "cargo is not installed: get Rust from https://rustup.rs" >&2; exit 1; }
