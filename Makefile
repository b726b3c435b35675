# `make` lists the targets. Each sets up what it needs inside the checkout; nothing is installed elsewhere.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# One profile for everything, so that dependencies compile once; the lock file is the truth.
FLAGS := --release --locked
TARGET := $(or $(CARGO_TARGET_DIR),target)
SCRIPTS := $(shell grep -rlI '^\#!.*bash' scripts .ci tests/sdk tests/manifests --exclude-dir=node_modules)

PROMPT ?= a red apple
LIBTORCH_SET ?= # --cpu or --cuda; empty: what suits this machine

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Turn a prompt into a PNG and print where it is (PROMPT='a red apple')
	@$(TARGET)/release/latentd run '$(subst ','\'',$(PROMPT))' --set num_inference_steps=20 --set guidance_scale=5 --out $(TARGET)/demo

.PHONY: check
check: setup ## See in seconds whether it compiles and is tidy
	cargo fmt --check
	CARGO_INCREMENTAL=1 cargo check $(FLAGS) --all-targets
	@mkdir -p $(TARGET)
	CARGO_MANIFEST_DIR=$(CURDIR) rustc --edition 2024 --test tests/tidy/main.rs -o $(TARGET)/tidy
	@RUST_BACKTRACE=0 $(TARGET)/tidy --quiet

.PHONY: test
test: setup ## Run the tests of Rust and of what deploys it, without root
	@scripts/setup-cuda-helper --optional --kernels
	@scripts/setup-redis
	cargo test $(FLAGS) --tests
	@tests/manifests/run

.PHONY: test-all
test-all: test ## Run all tests: with RunPod's SDKs and a browser, too
	@scripts/setup-browser
	@tests/sdk/run $(TARGET)/release/latentd
	@LATENTD=$(TARGET)/release/latentd scripts/page-test

.PHONY: build
build: setup ## Build target/release/latentd
	cargo build $(FLAGS)

.PHONY: setup
setup: ## Lay libtorch under .libtorch (LIBTORCH_SET=--cpu or --cuda forces the set), build the CUDA helper
	@scripts/setup-libtorch $(LIBTORCH_SET)
	@scripts/setup-cuda-helper --optional

.PHONY: lint
lint: setup ## Check format, clippy, docs, dependencies and scripts
	@scripts/setup-lint
	cargo fmt --check
	cargo clippy $(FLAGS) --all-targets -- -D warnings
	cargo clippy $(FLAGS) --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc $(FLAGS) --no-deps
	.tools/bin/cargo-deny --locked check bans licenses sources
	for script in $(SCRIPTS); do bash -n "$$script"; done
	if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); fi

.PHONY: parity
parity: setup ## Compare with diffusers on the CPU: what has not passed for this commit (PART=noise: that part)
	@scripts/parity/run $(PART)

.PHONY: soak
soak: build ## Kill workers and gateways again and again under load, watch a worker draw 2,000: minutes
	LATENTD=$(TARGET)/release/latentd scripts/reliability/run
	CHAOS_JOBS=500 SOAK_JOBS=2000 CRASH_KILLS=50 cargo test $(FLAGS) --test faults chaos:: gateway_crash:: -- --nocapture

.PHONY: fuzz
fuzz: ## Look for input that breaks what reads it: ten minutes a target (FUZZ_SECONDS=600)
	@scripts/fuzz

.PHONY: bench
bench: ## Compare the worker with the Python worker, in a Python environment of its own
	@scripts/bench/worker

.PHONY: audit
audit: ## Compare the dependencies with the advisory database (needs the network)
	@scripts/setup-lint
	.tools/bin/cargo-deny --locked check advisories

.PHONY: fmt
fmt: ## Format the code
	cargo fmt

.PHONY: clean
clean: ## Remove what was built; .libtorch and .tools stay
	cargo clean
	rm -rf .libtorch.part .tools/build
