# make demo   set up everything and hold real conversations on one machine   (STAY=1 stays up)
# make test   set up everything and run the whole suite
# make check  format, lint, types, import floors, unit tests, manifests       make fix  format and mend what can be mended
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAY ?=

.PHONY: help setup models demo test check fix unit bench lock clean vllm vllm-demo

help:  ## show what can be made
	@sed -n 's/^# //p' Makefile

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "xiaozhi-fleet needs Python 3.11 or later; this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what is pinned in requirements.lock (llama.cpp is compiled once: 4 to 6 minutes on 2 cores)"
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --require-hashes --progress-bar on --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP)  ## the environment in .venv

models: $(STAMP)  ## the starter models, with progress and hashes
	$(BIN)/xiaozhi-fleet models pull --set starter
	$(BIN)/xiaozhi-fleet models quantize silero-vad --to batched

demo: models  ## the main job, on this machine
	$(BIN)/xiaozhi-fleet demo $(if $(STAY),--stay)

vllm: models  ## vLLM on the processor, in an environment of its own (3.3 GB)
	$(BIN)/python -m manifests.vllm_environment

vllm-demo: vllm  ## a conversation through NATS with a real vLLM
	$(BIN)/python -m manifests.vllm_demo

test: models check  ## everything
	$(BIN)/python -m pytest -q -m "engine or integration"

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports
	PYTHONASYNCIODEBUG=1 $(BIN)/python -m pytest -q -m "not engine and not integration"
	$(BIN)/python -m manifests.check

unit: $(STAMP)
	$(BIN)/python -m pytest -q -m "not engine and not integration"

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: models
	$(BIN)/python -m benchmarks turns

lock: $(STAMP)  ## pin anew what pyproject.toml asks for
	$(BIN)/pip-compile --quiet --all-extras --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --no-header --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
