# Everything a developer does here. Arguments go through ARGS, e.g. `make up ARGS="--detach --port 9000"`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ARGS ?=
SERVICES := -p order-orchestrator -p stock-worker -p payment-worker -p api
# A process each needs their binaries; one process needs only firstcome's own.
SEPARATE := $(if $(findstring --separate,$(ARGS)),$(SERVICES))
FIRSTCOME := target/release/firstcome
# As many open files as the system allows: every customer's connection is one.
FILES := ulimit -n "$$(ulimit -H -n)" 2>/dev/null || true;

.PHONY: help setup up down reset status demo report build test fuzz simulate chaos soak poison scaling lint fmt purity schemas docs

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing, after saying what and why
	@scripts/setup.sh

up: setup ## Start the whole system (ARGS="--detach --separate --port N ...")
	@cargo build --release --locked --bins -p firstcome $(SEPARATE)
	@$(FILES) exec $(FIRSTCOME) up $(ARGS)

down: ## Stop it; the data stays
	@$(FIRSTCOME) down $(ARGS)

reset: ## Delete the data of a stopped system (ARGS=--yes)
	@$(FIRSTCOME) reset $(ARGS)

status: ## What runs, what is ready, what is missing
	@$(FIRSTCOME) status $(ARGS)

demo: ## A flash sale against the running system (ARGS="--buyers 1000 --units 100")
	@cargo build --release --locked --bins -p firstcome --quiet
	@$(FILES) exec $(FIRSTCOME) demo $(ARGS)

report: setup ## Every load scenario on a private system, with plots and audits, into target/report (ARGS=--short: smaller ones)
	@cargo build --release --locked --bins -p firstcome -p load-test
	@$(FILES) exec scripts/report.sh $(ARGS)

build: ## Build everything for development
	@cargo build --locked --workspace --bins

test: ## Set up and run every test, on private servers (ARGS go to cargo test)
	@scripts/setup.sh --test
	@cargo build --locked --workspace --bins
	@$(FILES) cargo test --locked --workspace $(ARGS)

lint: ## Formatting, lints, what the documents name, the containers' files, and the proof that the pure packages do no I/O
	@scripts/setup.sh --lint
	@cargo fmt --all -- --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	@scripts/check-purity.sh
	@scripts/crate-graph.sh --check
	@scripts/check-docs.sh
	@scripts/check-deploy.py

fuzz: ## More than 20,000 property-based requests against the running api, in three roles, by schemathesis
	@scripts/setup.sh --test
	@scripts/fuzz.sh "$${URL:-http://127.0.0.1:8080}" "$(FIRSTCOME)" $(ARGS)

simulate: ## Hundreds of thousands of seeded schedules of faults, on all cores (ARGS="--seed 4711" tells one)
	@cargo run --release --locked --quiet -p simulation --bin simulate -- $(ARGS)

chaos: ## Every fault on real processes while customers buy; writes docs/chaos.md (CHAOS_SEED, CHAOS_ONLY, CHAOS_BUSY_S)
	@scripts/setup.sh --test
	@cargo build --locked --workspace --bins --profile chaos
	@CHAOS_CELLS=1000 CHAOS_BUSY_S=$${CHAOS_BUSY_S:-6} CHAOS_TABLE=$(CURDIR)/docs/chaos.md \
		cargo test --locked --profile chaos --workspace --test chaos -- --nocapture

soak: ## Twenty minutes at half of the maximum load with a fault every 20 s (SOAK_S, CHAOS_SEED)
	@scripts/setup.sh --test
	@cargo build --locked --workspace --bins --profile chaos
	@cargo test --locked --profile chaos --workspace --test chaos twenty_minutes -- --ignored --nocapture

poison: ## 1,000 unreadable records under 50 keys among 50,000 orders: rates beside each other, corrected, redriven in order
	@scripts/setup.sh --test
	@cargo build --locked --workspace --bins
	@cargo test --locked --workspace --test poison -- --ignored --nocapture

scaling: ## Three brokers, the busiest one killed under load; a sale over two databases a worker while owners are frozen and killed
	@scripts/setup.sh --test
	@cargo build --locked --workspace --bins
	@cargo test --locked --workspace --test scaling -- --ignored --nocapture

fmt: ## Format
	@cargo fmt --all

purity: ## Only the proof that the pure packages do no I/O
	@scripts/check-purity.sh

schemas: ## Generate JSON Schema, AsyncAPI and docs/topics.md from the types
	@cargo run --locked --quiet -p schemas --example generate

docs: schemas ## Generate what docs are made from code: schemas, topics, crates, saga, OpenAPI; API documentation of the crates
	@scripts/crate-graph.sh
	@cargo run --locked --quiet -p saga --example docs
	@cargo run --locked --quiet -p api --example openapi
	@cargo doc --locked --workspace --no-deps --quiet
