# What a developer, a user and CI call; each target with `##` shows in `make help`. CI calls nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
# A release is built for the machine's users, tests are built once for all languages.
STAGE := $(CURDIR)/target/stage
WITH_MONGODB := tests/setup/with-mongodb.sh

# The tools of the checkout come first, and everything that they cache stays in it.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
export GOCACHE := $(CURDIR)/target/go/build
export GOMODCACHE := $(CURDIR)/target/go/modules
export GOTOOLCHAIN := local
export PYTHONDONTWRITEBYTECODE := 1
export MYPY_CACHE_DIR := $(CURDIR)/target/mypy
export RUFF_CACHE_DIR := $(CURDIR)/target/ruff

# CI builds nothing a second time.
ifdef CI
export CARGO_INCREMENTAL := 0
endif

# C and Go find the library where `make stage` installs it, by pkg-config as a user's build does.
export PKG_CONFIG_PATH := $(STAGE)/lib/pkgconfig$(if $(PKG_CONFIG_PATH),:$(PKG_CONFIG_PATH))
IN_STAGE := LD_LIBRARY_PATH=$(STAGE)/lib$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}

# The suites of `make test`, which run side by side: those that take longest first. Cargo lets one build go on at a time,
# so beside `lint`, which builds, there is what builds nothing more.
SUITES := lint \
  $(if $(wildcard tests/c/run),test-c) \
  $(if $(wildcard python/pyproject.toml),test-python) \
  $(if $(wildcard tests/scenarios/run),test-scenarios) \
  test-rust \
  $(if $(wildcard go/go.mod),test-go) \
  test-mongodb test-models test-simulation \
  $(if $(and $(wildcard ffi/install.sh),$(wildcard go/go.mod),$(wildcard python/pyproject.toml)),test-readme) \
  test-faults test-fuzz

# What runs beside Rust's own tests: models and the simulation need speed, the Python extension has no main program,
# scenarios all languages.
RUST_APART := coord-models coord-simulation coord-python coord-scenarios
# The same for each suite, so that what is built for one is what the other needs.
RUST_TESTED = --workspace $(addprefix --exclude ,$(RUST_APART)) --locked
# Rust's tests mostly wait for servers: there are more at a time than cores.
RUST_THREADS = $(if $(RUST_TEST_THREADS),$(RUST_TEST_THREADS),4)

.PHONY: help
help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-24s %s\n", $$1, $$2 }'

##@ For users

.PHONY: demo
demo: setup-demo ## Run the main job: C, Go and Python share one lock (URL=… or STORE=mongodb for others than SQLite)
	URL='$(URL)' STORE='$(STORE)' examples/demo/run

.PHONY: install
install: ## Install the C library, header, pkg-config and CMake files under PREFIX (default /usr/local)
	ffi/install.sh '$(PREFIX)' release

.PHONY: wheel
wheel: ## Build the Python wheel into dist/
	tests/setup/setup.sh wheel
	maturin build --release --locked --manifest-path python/Cargo.toml --out dist

##@ For developers

.PHONY: setup
setup: ## Check the tools, and install what can be had without asking into .venv
	tests/setup/setup.sh test

.PHONY: test
test: setup ## Run lint and every suite of every language on real servers
	$(WITH_MONGODB) tests/setup/suites.sh built -- $(SUITES)

.PHONY: bench
bench: setup ## Measure against the stores' floors and real peers (ONLY=… for a part, ROUNDS=… how often)
	ONLY='$(ONLY)' ROUNDS='$(ROUNDS)' MINUTES='$(MINUTES)' benches/run

.PHONY: faults
faults: stage extension ## Kill, stop and cut off real processes in all languages on both stores (MINUTES=n on each, SEED=n, STORE=sqlite or mongodb)
	cargo build --quiet --locked -p coord-faults
	for store in $(if $(STORE),$(STORE),sqlite mongodb); do \
	  tests/faults/run $$store $(if $(MINUTES),$(MINUTES),10) $(if $(SEED),$(SEED),1); \
	  $(WITH_MONGODB) target/debug/coord-faults roster $$store $(if $(MINUTES),$(MINUTES),5) $(if $(SEED),$(SEED),1); \
	done

# What it cannot bear is another date of the primary: of all kinds of faults on MongoDB one in a few minutes.
.PHONY: faults-naive
faults-naive: ## The same with a protocol in which the store's date alone decides: it must be found out (MINUTES=n, SEED=n)
	cargo build --quiet --locked -p coord-faults --features mutants
	for store in $(if $(STORE),$(STORE),sqlite mongodb); do \
	  COORD_FAULTS_WORKERS= tests/faults/run naive $$store $(if $(MINUTES),$(MINUTES),5) $(if $(SEED),$(SEED),1); \
	done

.PHONY: table-campaign
table-campaign: stage extension ## Write DOCUMENTS=n with a plain driver for MINUTES=n under faults, beside reconcilers of every language
	$(IN_STAGE) tests/tables/run $(if $(MINUTES),$(MINUTES),5) $(if $(DOCUMENTS),$(DOCUMENTS),100000) $(if $(SEED),$(SEED),1)

.PHONY: shard-campaign
shard-campaign: ## Kill and stop replicas of a sharded reconciler on both stores (MINUTES=n on each, SEED=n)
	cargo build --quiet --locked -p coord-table-campaigns
	for store in sqlite mongodb; do \
	  target/debug/coord-table-campaigns shards $$store $(if $(MINUTES),$(MINUTES),5) $(if $(SEED),$(SEED),1); \
	done

.PHONY: failpoints
failpoints: ## Kill a process, and hold one up, at each point between two steps of the core, on both stores (ROUNDS=n, SEED=n, STORE=sqlite or mongodb)
	cargo build --quiet --locked -p coord-failpoints --features failpoints
	for store in $(if $(STORE),$(STORE),sqlite mongodb); do \
	  $(WITH_MONGODB) target/debug/coord-failpoints $$store $(if $(ROUNDS),$(ROUNDS),1) $(if $(SEED),$(SEED),$$RANDOM); \
	done

.PHONY: failpoints-mutants
failpoints-mutants: ## Show that the above catches each known-bad variant of the core that leaves what the dead have left
	cargo build --quiet --locked -p coord-failpoints --features failpoints,mutants
	$(WITH_MONGODB) target/debug/coord-failpoints mutants

.PHONY: simulate
simulate: ## Play simulated histories of the real core (HOURS=n, FIRST=seed)
	cargo run --quiet --profile checks --locked -p coord-simulation -- \
	  minutes $$(( $(if $(HOURS),$(HOURS),1) * 60 )) $(if $(FIRST),$(FIRST),1000)

.PHONY: fuzz
fuzz: ## Feed each target of tests/fuzz with what libFuzzer makes up, under the address sanitizer (MINUTES=n on each, ONLY=target)
	MINUTES='$(MINUTES)' tests/fuzz/campaign/run $(ONLY)

.PHONY: miri
miri: ## Run what of the C interface needs no client under Miri, which knows all rules of Rust's memory
	tests/memory/miri

.PHONY: tsan
tsan: ## Run the C programs under the thread sanitizer, with the library and SQLite built for it (ONLY=program)
	tests/memory/tsan $(ONLY)

.PHONY: power
power: ## Lose the power at random moments of what is written to an SQLite file (MINUTES=n, SEED=n)
	COORD_POWER_MINUTES=$(if $(MINUTES),$(MINUTES),5) $(if $(SEED),COORD_POWER_SEED=$(SEED)) \
	  cargo test --quiet --locked -p coord-core --test power -- --nocapture

.PHONY: mail-campaigns
mail-campaigns: setup stage extension ## Send MAILS=n mails through an outbox whose senders are killed, and look at INPUTS=n random messages
	$(WITH_MONGODB) tests/mail/campaign.sh $(if $(MAILS),$(MAILS),1000)
	COORD_MAIL_INPUTS=$(if $(INPUTS),$(INPUTS),1000000) cargo test --quiet --locked -p coord-tests --test mail random -- --nocapture

.PHONY: mutants
mutants: ## Show that the simulation catches each known-bad variant of the core (QUICK=1 for most of them)
	cargo run --quiet --profile checks --locked -p coord-simulation --features mutants -- mutants $(if $(QUICK),quick)

.PHONY: fmt
fmt: ## Format the sources of every language
	cargo fmt --all
	$(if $(wildcard go/go.mod),gofmt -w go examples)
	$(if $(wildcard python/pyproject.toml),ruff format python && ruff check --fix python)

.PHONY: clean
clean: ## Remove what was built; .venv stays
	rm -rf target dist

##@ Parts of lint

.PHONY: lint
lint: lint-rust lint-features lint-docs lint-deps lint-go lint-python ## Check formats, lints, types, docs and dependencies

.PHONY: lint-rust
lint-rust: ## Check Rust's format and lints
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
	cargo clippy --quiet --workspace --test mongodb --locked -- -D warnings

.PHONY: lint-features
lint-features: ## Check that each backend of the core builds alone, and the core without any
	for features in "" sqlite mongodb mail testing,failpoints; do \
	  cargo clippy --quiet --locked -p coord-core --no-default-features --features "$$features" -- -D warnings; \
	done

.PHONY: lint-docs
lint-docs: ## Check that every public item is documented and every link leads somewhere
	RUSTDOCFLAGS="-D warnings -D missing_docs -A rustdoc::private_intra_doc_links" cargo doc --quiet --workspace --no-deps --locked

.PHONY: lint-deps
lint-deps: ## Check the dependencies' licences, sources, TLS stack and, where reachable, advisories
	tests/setup/cargo-deny.sh

.PHONY: lint-go
lint-go: $(if $(wildcard go/go.mod),stage) ## Check Go's format, and vet it
	$(if $(wildcard go/go.mod),cd go && test -z "$$(gofmt -l . | tee /dev/stderr)" && $(IN_STAGE) go vet ./...)

.PHONY: lint-python
lint-python: $(if $(wildcard python/pyproject.toml),extension) ## Check Python's format, lints and types
	$(if $(wildcard python/pyproject.toml),cd python && ruff check . && ruff format --check . && mypy --strict coord)

##@ Parts of test: each starts the servers that it needs

.PHONY: test-rust
test-rust: ## Run Rust's other suites: core, ABI, mail, the tree itself
	RUST_TEST_THREADS=$(RUST_THREADS) $(WITH_MONGODB) cargo test --quiet --no-fail-fast $(RUST_TESTED)

.PHONY: test-mongodb
test-mongodb: ## Run the suite of Rust's store on a real replica set: steps, faults, failovers, tables
	RUST_TEST_THREADS=$(RUST_THREADS) $(WITH_MONGODB) cargo test --quiet $(RUST_TESTED) --test mongodb

.PHONY: test-models
test-models: ## Check the models of the protocol, and that they refute its mutants
	cargo test --quiet --profile checks -p coord-models --locked

# One build for both: none of the variants is on where the seeds are played.
.PHONY: test-simulation
test-simulation: ## Play fixed and fresh seeds of the simulation, and check that it catches the core's bad variants
	cargo test --quiet --profile checks --locked -p coord-simulation --features mutants
	@$(MAKE) mutants QUICK=1

.PHONY: test-faults
test-faults: ## Play one round of real faults on each store, in the languages that are built
	cargo build --quiet --locked -p coord-faults
	for store in sqlite mongodb; do \
	  tests/faults/run $$store 0.2 $(if $(SEED),$(SEED),$$RANDOM) quick; \
	  $(WITH_MONGODB) target/debug/coord-faults roster $$store 0.1 $(if $(SEED),$(SEED),$$RANDOM) quick; \
	done

# Not among the suites: it builds the core once more, which takes longer than it does.
.PHONY: test-failpoints
test-failpoints: ## Play the story of `make failpoints` once on each store, with BLOWS=n at points drawn by SEED=n
	cargo build --quiet --locked -p coord-failpoints --features failpoints
	$(WITH_MONGODB) target/debug/coord-failpoints quick $(if $(BLOWS),$(BLOWS),12) $(if $(SEED),$(SEED),$$RANDOM)

.PHONY: test-fuzz
test-fuzz: ## Feed each target of tests/fuzz for a short time (SECONDS=n on each, SEED=n)
	cargo run --quiet --locked -p coord-fuzz -- all $(if $(SECONDS),$(SECONDS),10) $(SEED)

.PHONY: test-c
test-c: stage ## Run the C suite, with sanitizers and valgrind
	$(IN_STAGE) $(WITH_MONGODB) tests/c/run

.PHONY: test-go
test-go: stage ## Run the Go suite: races, garbage, pointers given to C, both ways to link
	$(WITH_MONGODB) go/test.sh

.PHONY: test-python
test-python: extension ## Run the Python suite
	$(WITH_MONGODB) python -m pytest -q -p no:cacheprovider python/tests

.PHONY: test-scenarios
test-scenarios: stage extension ## Play the stories in Rust, C, Go and Python on every store
	$(IN_STAGE) $(WITH_MONGODB) tests/scenarios/run

.PHONY: test-readme
test-readme: stage extension ## Run the examples of the README
	$(IN_STAGE) tests/readme/run

##@ What these are built on

.PHONY: setup-demo
setup-demo: ## Check the tools that the demo needs
	tests/setup/setup.sh demo

# `make test` builds both once, before suites run side by side.
.PHONY: stage
stage: ## Install the C library, built for tests, under target/stage
	$(if $(BUILT),,ffi/install.sh '$(STAGE)' dev)

.PHONY: extension
extension: ## Build the Python package for tests into .venv
	$(if $(BUILT),,maturin develop --quiet --locked --manifest-path python/Cargo.toml)

.PHONY: built
built: $(if $(wildcard ffi/install.sh),stage) $(if $(wildcard python/pyproject.toml),extension) ## Build what the suites of the other languages run against
