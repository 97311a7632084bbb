# Everything runs from .venv, which the first target makes: needs Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
FILE ?= README.md
export PYTHONWARNINGS :=
# Tests are prepared once, and the broker compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test environments clients browser proxies accept bench lint types imports unit schemas docs golden clean

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sidecast needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/ready ## a real agent works on FILE; watch it with curl or the browser
	$(BIN)/sidecast demo $(FILE)

test: lint types imports unit ## all checks and tests (a few minutes)

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/mypy

imports: .venv/ready
	$(BIN)/lint-imports

unit: .venv/ready
	$(BIN)/python -m pytest -m 'not accept' --ignore tests/a2a --ignore tests/browser --ignore tests/proxies --rows test --numprocesses 3 --dist worksteal

# Beside .venv, not from it: both wait for the network. What fails here the tests try again, and tell of.
environments: ## the SDKs and packages that tests install for themselves (half a minute; needs Node.js)
	-PYTHONPATH=tests $(PYTHON) -m image_tree
	-PYTHONPATH=tests $(PYTHON) -m a2a_rig.environments

clients: .venv/ready ## the A2A door with real agents and clients of four SDKs (some three minutes; needs Node.js)
	$(BIN)/python -m pytest -m 'not accept' --rows clients tests/a2a

browser: .venv/ready ## the live page in Chromium (two minutes)
	$(BIN)/python -m pytest -m 'not accept' tests/browser

proxies: .venv/ready ## streams through nginx and HAProxy, configured as docs/proxies.md says (half a minute)
	$(BIN)/python -m pytest -m 'not accept' tests/proxies

accept: .venv/ready ## long loads and fault runs (some ten minutes)
	$(BIN)/python -m pytest -m accept --rows accept -p no:randomly

bench: .venv/ready ## compare with send() in C, aiohttp-sse and nchan (ten minutes, on a quiet machine)
	$(BIN)/python -m bench $(BENCH)

schemas: .venv/ready ## write schemas/json again from the structs
	$(BIN)/python -m sidecast_schemas.generate schemas/json

docs: .venv/ready ## write what is generated from the code again: tables in docs/, the schema of the chart
	$(BIN)/python -m sidecast_broker.reference docs/operations.md
	PYTHONPATH=tests $(BIN)/python -m chart_schema helm/sidecast
	PYTHONPATH=tests $(BIN)/python -m conformance.document docs/a2a-conformance.md
	PYTHONPATH=tests $(BIN)/python -m chart_readme helm/sidecast
	PYTHONPATH=tests $(BIN)/python -m sizing

golden: .venv/ready ## write what the chart renders again: tests/helm/golden and helm/kustomize
	PYTHONPATH=tests $(BIN)/python -m chart_golden

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
