# Every target is a line or two over pip and the kaowu command line. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
BEGAN := $(shell date +%s)
# A stamp's name changes whenever what is installed would change; as long as it stands, nothing is fetched.
LOCAL := $(VENV)/local-$(shell cat requirements/local.lock pyproject.toml | cksum | cut -d' ' -f1)
DEV := $(VENV)/dev-$(shell cat requirements/dev.lock pyproject.toml | cksum | cut -d' ' -f1)
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

CYCLE := deploy/cycles/2024-health-leshan.toml
CANDIDATES ?= 4000
SEED ?= 20240208
SEEDS ?= 20000
RUNS ?= 100000
SCALE ?= small

.PHONY: help setup demo test test-faults test-cluster simulate interleavings check lint types imports format lock up clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(LOCAL)  ## virtual environment, hash-locked dependencies, the kaowu command, Kafka's jars

$(LOCAL):
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "$(PYTHON) is not installed: install Python 3.11 (with venv), or name another with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: install its venv module"; exit 1; }
	@rm -f $(VENV)/local-*
	@echo "installing the local system's dependencies into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements/local.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/kaowu fetch
	@touch $@

$(DEV): $(LOCAL)
	@rm -f $(VENV)/dev-*
	@echo "installing the tests' and the checks' dependencies into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements/dev.lock
	@touch $@

demo: setup  ## rehearse the Leshan cycle of 2024 with 4,000 candidates and write the report
	@installed=$$(date +%s); code=0; \
	$(BIN)/kaowu rehearse --cycle $(CYCLE) --candidates $(CANDIDATES) --seed $(SEED) || code=$$?; \
	ended=$$(date +%s); \
	echo "make demo: $$((installed - $(BEGAN))) s to install, $$((ended - installed)) s to start, rehearse and report, $$((ended - $(BEGAN))) s in all"; \
	exit $$code

up: setup  ## the local system on the real clock, until Ctrl-C
	@$(BIN)/kaowu up --cycle $(CYCLE)

test: check  ## all checks and the whole test suite
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: $(DEV)  ## every test that breaks a whole local system on purpose (make test plays a few of them)
	@$(BIN)/pytest -m faults --faults all tests

test-cluster: $(DEV)  ## three brokers, a standby database, cut networks, rolling restarts; needs a Docker engine
	@$(BIN)/pytest tests/cluster

simulate: $(DEV)  ## play 20,000 seeded runs (SEEDS=...), or repeat one and cut it down when it fails (SEED=...)
	@$(BIN)/python -m tests.simulation $(if $(filter command line,$(origin SEED)),--seed $(SEED),--seeds $(SEEDS))

interleavings: $(DEV)  ## 100,000 registrations (RUNS=...): order, pay, callback, query, close, sweep, refund, statement by statement
	@$(BIN)/python -m tests.interleavings --runs $(RUNS)

bench: setup  ## measure the streams, the close and the messages against their peers (SCALE=small or full; full records docs/performance.md)
	@PYTHON=$(PYTHON) tests/benchmarks/peers-install
	@tests/benchmarks/rabbitmq-install || echo "going on without RabbitMQ: its row will say that it was not measured"
	@PYTHON=$(PYTHON) tests/benchmarks/pretix-install || echo "going on without pretix: its row will say that it was not measured"
	@$(BIN)/kaowu bench streams --scale $(SCALE)
	@$(BIN)/kaowu bench close --scale $(SCALE)
	@$(BIN)/kaowu bench messages --scale $(SCALE)

check: lint types imports  ## ruff, ruff format, mypy --strict, import-linter

lint: $(DEV)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV)
	@$(BIN)/mypy

imports: $(DEV)
	@$(BIN)/lint-imports

format: $(DEV)  ## let ruff write the format and its safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(DEV)  ## compile requirements/*.in to hash-locked files again, newest versions allowed
	@cd requirements && compile="../$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade" && \
	  $$compile services.in -o services.lock && \
	  $$compile -c services.lock local.in -o local.lock && \
	  $$compile -c local.lock dev.in -o dev.lock

clean:  ## remove what was built here (not the caches outside)
	@rm -rf build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
