# Two commands matter: `make quickstart` and `make test`. Both make .venv first, from the pins in constraints/.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SEED ?= 0
RUNS ?= runs

# The environment of the newest releases, and the one of a newer Python; both are made beside .venv and used by tests only.
NEWEST := .venv-newest
NEWER := .venv-newer-python
# The first of these that runs is the newer Python: a shim of that name may lie on the PATH and fail, where pyenv has one.
NEWER_PYTHONS ?= python3.13 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.1[23].*/bin/python)
# Not empty: it is an error that there is none.
REQUIRE_NEWER ?=
# What `make constraints` pins with: the oldest Python for which each file holds.
PYTHON311 ?= python3.11
PYTHON312 ?= python3.12

PINS := constraints/python3.11.txt constraints/python3.12.txt
# The pins for the Python of an environment: the newest JAX needs Python 3.12, and so do several packages below it.
pins_for = constraints/python$$($(1) -c 'import sys; print("3.11" if sys.version_info < (3, 12) else "3.12")').txt
# Prints the version of a Python that can make the newer environment, and fails in another.
NEWER_VERSION := import ensurepip, sys, venv; sys.version_info < (3, 12) and sys.exit(1); \
  print(*sys.version_info[:3], sep=".")
# Puts the checkout on the path of environment $(1): the hook of an editable installation is asked after Python's own
# search, which takes a folder `ecgjax`, as that of a clone is called, for the package where Python is started beside it.
checkout_on_path = echo "$(CURDIR)" \
  > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ecgjax_checkout.pth"
# Makes environment $(2) with Python $(1); $(3) is --clear where an earlier one may be of another Python. Setuptools comes
# from the pins too, hence no isolated build.
# Setuptools warns at every editable installation of folders that lie in the working directory, which is the point of it.
define pinned_environment
	$(1) -m venv $(3) $(2)
	$(2)/bin/python -m pip install --quiet -c $(call pins_for,$(2)/bin/python) --upgrade pip setuptools
	PYTHONWARNINGS='ignore:Editable installation' \
	  $(2)/bin/python -m pip install --quiet -c $(call pins_for,$(2)/bin/python) --no-build-isolation -e '.[test]'
	$(call checkout_on_path,$(2))
endef
PYTEST_ARGUMENTS := -n 2 --dist worksteal
# What runs on the newer Python too: what stands nearest to JAX, Flax, Orbax and the readers' packages.
ON_BOTH := $(patsubst %,tests/%.py,project/test_front_door project/test_shared_buffers ecgjax/encoders/test_registry ecgjax/encoders/test_all ecgjax/encoders/test_published \
  ecgjax/encoders/test_tokens ecgjax/encoders/operations/test_convolutions ecgjax/encoders/operations/test_pooling ecgjax/encoders/test_cost \
  ecgjax/encoders/test_gradients ecgjax/encoders/operations/test_batch_norm ecgjax/objectives/pairs/test_float_comparisons \
  ecgjax/augmentations/test_views ecgjax/objectives/losses/test_nt_xent ecgjax/objectives/miners/test_miners \
  ecgjax/objectives/losses/test_positives ecgjax/objectives/losses/test_common_offset \
  ecgjax/objectives/test_objective ecgjax/optim/test_optimizers ecgjax/training/test_train_step \
  ecgjax/export/test_all ecgjax/export/onnx/test_primitives \
  ecgjax/processes/test_agreement ecgjax/processes/test_barriers ecgjax/processes/test_start \
  ecgjax/training/checkpoints/test_checkpoint ecgjax/test_resume data_pipelines/streaming/test_batches \
  data_pipelines/shards/test_dataset_build data_pipelines/readers/test_formats)

.PHONY: help install quickstart test test-slow slow soak test-newer-python newer-python-found test-newest lint docs format \
  constraints clean
# Tests run on all cores by themselves, and what was not run is said last.
.NOTPARALLEL:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "%-20s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.installed: Makefile setup.py $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgjax needs Python 3.11 or later; run: make PYTHON=python3.11 ...")'
	$(call pinned_environment,$(PYTHON),$(VENV))
	@touch $@

# Other targets install too, and end with a line of their own.
install: $(VENV)/.installed  ## ecgjax and its test tools at pinned versions, in .venv
	@$(if $(filter install,$(MAKECMDGOALS)),$(PY) -c 'from data_pipelines.version import __version__; \
	  print(f"ecgjax {__version__} with its test tools is installed in $(VENV).", \
	  "Next: make quickstart, or source $(VENV)/bin/activate && ecgjax help")')

quickstart: install  ## simulated cohort to report, in minutes on two cores
	$(PY) -m launch.quickstart --seed=$(SEED) --out=$(RUNS)/quickstart

test: install lint  ## lint, then every test but the slow ones
	$(PY) -m pytest $(PYTEST_ARGUMENTS) -m "not slow"

# Whichever of the two fails, the other runs all the same.
test-slow:  ## the slow tests, then some of all tests on a newer Python
	@$(MAKE) --no-print-directory --keep-going slow test-newer-python

slow: install
	$(PY) -m pytest $(PYTEST_ARGUMENTS) -m "slow and not soak"

soak: install  ## runs killed again and again, and an array: an hour or more
	$(PY) -m pytest $(PYTEST_ARGUMENTS) -m soak

test-newer-python:  ## some of all tests on Python 3.13 or 3.12, where found
	@for python in $(NEWER_PYTHONS); do \
	  if version=$$($$python -c '$(NEWER_VERSION)' 2> /dev/null); then \
	    exec $(MAKE) --no-print-directory newer-python-found NEWER_PYTHON=$$python NEWER_PYTHON_IS=$$version; \
	  fi; \
	done; \
	echo 'NOT RUN: the tests on a newer Python. None of these is Python 3.12 or later with venv: $(NEWER_PYTHONS).' \
	  'Name one: make $@ NEWER_PYTHONS=/path/to/python3.13'; \
	test -z '$(REQUIRE_NEWER)'

newer-python-found: $(NEWER)/.installed-$(NEWER_PYTHON_IS)
	$(NEWER)/bin/python -m pytest $(PYTEST_ARGUMENTS) -m "not slow" $(ON_BOTH)

# Cleared, because another Python may have made it.
$(NEWER)/.installed-$(NEWER_PYTHON_IS): Makefile setup.py $(PINS)
	$(call pinned_environment,$(NEWER_PYTHON),$(NEWER),--clear)
	@touch $@

test-newest: lint  ## `make test` with the newest release of every package
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --quiet -e '.[test]'
	$(call checkout_on_path,$(NEWEST))
	$(NEWEST)/bin/python -m pytest $(PYTEST_ARGUMENTS) -m "not slow"

lint: install  ## ruff check and format check, then types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy ecgjax data_pipelines launch configs

# The variable silences a notice of the theme about another project.
docs: install  ## documentation as a site in site/, with warnings as errors
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

format: install  ## rewrite with ruff
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

constraints:  ## pin anew what Python 3.11 and 3.12 install; then test again
	./constraints/pin $(PYTHON311) constraints/python3.11.txt
	./constraints/pin $(PYTHON312) constraints/python3.12.txt

clean:  ## remove the environments and runs
	rm -rf $(VENV) $(NEWEST) $(NEWER) $(RUNS) site
