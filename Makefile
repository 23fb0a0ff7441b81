# Two commands matter: `make quickstart` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SEED ?= 0
RUNS ?= runs

.PHONY: help install quickstart test lint format clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

$(VENV)/.installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgjax needs Python 3.11 or later; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -e '.[test]'
	@touch $@

install: $(VENV)/.installed  ## make .venv and install ecgjax with its test tools

quickstart: install  ## simulated cohort -> pretraining -> probe -> report, in a few minutes on two cores
	$(PY) -m launch.quickstart --seed=$(SEED) --out=$(RUNS)/quickstart

test: install lint  ## lint, then the whole test suite
	$(PY) -m pytest -n 2 --dist worksteal

lint: install  ## ruff check and format check
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: install  ## rewrite with ruff
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## remove .venv and runs
	rm -rf $(VENV) $(RUNS)
