# make up      builds elkfk and runs it: /var/log to http://127.0.0.1:5601
# make test    installs what the tests need, the ancestors included, and runs them all
# make soak    the longer proofs: seeds and chaos
# make bench   side by side with the ancestors; see bench/src/main.rs

SHELL := /bin/bash
ARGS ?=

.PHONY: up build test lint soak bench tools

up: build
	exec $(or $(CARGO_TARGET_DIR),target)/release/elkfk up $(ARGS)

build: tools
	cargo build --release -p elkfk

tools:
	@for tool in cargo cc c++; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
	  echo "missing:$$missing"; \
	  echo "  cargo: https://rustup.rs    cc, c++: apt-get install build-essential (or your system's C and C++ compiler)"; \
	  exit 2; \
	fi
	@need=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); have=$$(rustc --version | cut -d' ' -f2); \
	if [ "$$(printf '%s\n' "$$need" "$$have" | sort -V | head -1)" != "$$need" ]; then \
	  echo "rustc $$have is too old: $$need or newer is needed (rustup update, or https://rustup.rs)"; \
	  exit 2; \
	fi

test: tools
	tests/setup
	tests/run

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	tests/deny

soak: tools
	tests/setup
	tests/soak

bench: build
	tests/setup bench
	bench/run
