# make run: the main job, shown. make test: every test. Each does its own set-up. The others: docs/development.md.
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built
FUZZ_SECONDS ?= 20

# What the extension is made of. Python files are used from the tree and need no build.
NATIVE := $(shell find native/include native/src native/python -type f ! -path '*/__pycache__/*' 2>/dev/null)
BUILD_FILES := pyproject.toml CMakeLists.txt native/CMakeLists.txt scripts/build_backend.py scripts/setup-python

# The stamp may have outlived the extension (git clean), which is in the tree.
ifeq ($(wildcard shardmos/_native.abi3.so),)
.PHONY: $(STAMP)
endif

.PHONY: build run test conformance wheel native-test sanitize clang dpdk fuzz-short lint clean system

build: $(STAMP)

system:
	@scripts/setup-system

$(STAMP): $(NATIVE) $(BUILD_FILES) | system
	@echo "building shardmos into $(VENV) ..."
	@scripts/setup-python
	@touch $@

run: build
	@$(BIN)/python examples/main_job.py

# The order puts what fails soonest first; pytest's closing line is the last. Tests whose programs cannot be had skip.
test: build
	@[ "$$(id -u)" != 0 ] || scripts/setup-system programs || echo "tests that need these programs will be skipped"
	@$(MAKE) --no-print-directory lint
	@scripts/native-test gcc
	@scripts/native-test sanitize
	@scripts/native-test clang --if-there
	@scripts/native-test dpdk --if-there
	@$(BIN)/python -m pytest $(PYTEST)

conformance: build
	@$(BIN)/python -m pytest -m conformance $(PYTEST)

wheel: build
	@$(BIN)/python -m build --outdir dist .

# ---- the C library alone: one directory under build/ for each way to build it ----

native-test: | build
	@scripts/native-test gcc

sanitize: | build
	@scripts/native-test sanitize

clang: | build
	@scripts/setup-system clang
	@scripts/native-test clang

dpdk: | build
	@scripts/setup-system dpdk
	@scripts/native-test dpdk

fuzz-short: | build
	@scripts/setup-system clang
	@scripts/fuzz $(FUZZ_SECONDS)

lint: build
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

clean:
	rm -rf build dist $(VENV) shardmos/*.abi3.so
