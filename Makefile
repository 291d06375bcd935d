# make help lists the targets. Everything runs in .venv, which tools/setup makes.
.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo demo-fleet demo-pbx call test check format bench bench-fleet models pins clean
PYTHON := .venv/bin/python
URI ?= sip:demo@127.0.0.1:5060
SAY ?= What are your opening hours?

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup:  ## Debian packages, .venv, models: what the server needs
	@tools/setup runtime

setup-test:
	@tools/setup test

demo: setup  ## set up and start the server: SIP on 127.0.0.1:5060, HTTP on 127.0.0.1:8080 (CTRL-C ends it)
	@tools/demo

demo-fleet:  ## set up and start a whole fleet on this machine: Redis, PostgreSQL, Kamailio, cells (CTRL-C ends it)
	@tools/setup fleet
	@tools/demo-fleet

demo-pbx:  ## set up and start a small PBX and the server as its extension (docs/telephony.md walks through it)
	@tools/setup fleet
	@command -v baresip >/dev/null || echo "demo-pbx: for its phones: apt-get install baresip"
	@tools/demo-pbx

call: setup  ## call the running demo, ask it something, record both sides (SAY="..." URI=sip:...)
	@mkdir -p build
	@.venv/bin/sipserver call "$(URI)" --say "$(SAY)" --record build/call.wav

test: check  ## set up, check and run all tests; fails under 85 % coverage
	@mkdir -p build
	@$(if $(PYTEST),$(PYTHON) -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=85 $(PYTEST),tools/test)

check: setup-test  ## style, types, rooms, security (offline: without the advisory database)
	@echo "ruff" && $(PYTHON) -m ruff check --quiet . && $(PYTHON) -m ruff format --check --quiet .
	@tools/typed_tree
	@echo "mypy" && MYPYPATH=build/typed $(PYTHON) -m mypy --no-error-summary --cache-dir build/mypy build/typed/sipserver tests tools
	@echo "import-linter" && cd build/typed && said=$$(../../.venv/bin/lint-imports --no-logo --config ../../.importlinter --cache-dir ../import_linter) || { echo "$$said"; exit 1; }
	@echo "bandit" && $(PYTHON) -m bandit --quiet --recursive --configfile pyproject.toml sipserver codecs tenants webhooks
	@$(PYTHON) -m tools.audit

format:  ## let ruff rewrite what it can
	@$(PYTHON) -m ruff check --fix --quiet . && $(PYTHON) -m ruff format .

bench: setup-test  ## measure and print the table of docs/benchmarks.md (BENCH=echo for one)
	@$(PYTHON) -m tools.bench $(BENCH)

bench-fleet: setup-test  ## measure a whole fleet under load (BENCH=fleet-steps for one, BENCH_ARGS="--peer HOST:PORT")
	@$(PYTHON) -m tools.bench $(or $(BENCH),fleet) $(BENCH_ARGS)

models: setup  ## install the models and list them
	@.venv/bin/sipserver models list

pins: setup-test  ## write the versions in .venv to requirements/constraints.txt
	@tools/pins

clean:  ## remove what builds and checks left; .venv, models, records and recordings stay
	@rm -rf build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
