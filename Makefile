# Everything a person or a machine does with this project. The first two are all that a newcomer needs: make demo, make test.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pytest workers; two keep a small machine busy without starving the servers that the tests start
JOBS ?= 2
PYTEST_ARGS ?=

# Bytecode is compiled once, at install: without it every start of Airflow costs twice the time.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH
# uv reads neither pip's settings nor the system's certificates by itself.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= 1
endif
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
export UV_HTTP_TIMEOUT ?= 180
export UV_NO_PROGRESS ?= 1

# $(call locked,FILE): what FILE pins, by uv, or by pip where uv cannot reach the index.
locked = echo "installing $(1)"; \
  $(BIN)/uv pip install -q --python $(BIN)/python --no-deps --require-hashes --compile-bytecode -r $(1) \
  || $(BIN)/python -m pip install -q --no-deps --require-hashes -r $(1)

.PHONY: help install install-dev demo test lint check fix bench nightly services lock clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.installed ## .venv with the locked versions; .venv/bin/fscore is the command

install-dev: $(VENV)/.installed-dev

demo: $(VENV)/.installed $(VENV)/.installed-demo ## a model release from end to end: make demo [KEEP=1] [ALL=1]
	@$(BIN)/python -m fscore_airflow.demo $(if $(KEEP),--keep) $(if $(ALL),--all) $(DEMO_ARGS)

test: $(VENV)/.installed-dev services ## the whole suite: make test [PYTEST_ARGS="-k push"]
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not nightly" $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## ruff, mypy --strict, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

check: lint test ## what CI calls

fix: $(VENV)/.installed-dev ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev services ## the ratios of tests/bench/README.md
	@missed=0; for bench in tests/bench/bench_*.py; do \
	  echo "== $$bench"; PYTHONPATH=.:plugins $(BIN)/python $$bench || missed=1; \
	done; exit $$missed

nightly: $(VENV)/.installed-dev services ## long histories, long crash sweeps
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --timeout 3600 $(PYTEST_ARGS)

services: | $(VENV)/.installed-dev ## the servers that tests start by themselves (Debian packages, needs root once)
	@.ci/services

lock: ## pin again after a change of pyproject.toml
	$(BIN)/uv pip compile -q --generate-hashes --no-annotate --no-header --python-version 3.11 pyproject.toml --extra postgres --extra mysql -o requirements.lock
	$(BIN)/uv pip compile -q --generate-hashes --no-annotate --no-header --python-version 3.11 pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	printf '%s\n' 'pyfuse3>=3.5' 'setuptools>=78.1.1' 'setuptools-scm>=8' cython | $(BIN)/uv pip compile -q --generate-hashes --no-annotate --no-header --python-version 3.11 - -c requirements-dev.lock -o requirements-mount.lock

clean: ## everything that was made here, the demo's volumes included
	rm -rf $(VENV) .demo .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/uv: requirements-build.lock
	@.ci/venv $(PYTHON) $(VENV)
	@echo "installing requirements-build.lock"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-build.lock
	@touch $(BIN)/uv

$(VENV)/.installed: requirements.lock pyproject.toml $(BIN)/uv
	@$(call locked,requirements.lock)
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@$(call locked,requirements-dev.lock)
	@touch $@

$(VENV)/.installed-demo: requirements-demo.lock $(VENV)/.installed
	@$(call locked,requirements-demo.lock)
	@touch $@
