# make rebuild   environment, then the whole pipeline (`dvc repro`), then the results as a table
# make test      environment, then the test suite
# make lint      environment, then ruff, mypy and import-linter
# Another interpreter: make rebuild PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=

# DVC runs stages as `python -m stages.x`: the environment's python must be the first one found.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export DVC_NO_ANALYTICS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: rebuild test lint venv clean-venv
.DELETE_ON_ERROR:

rebuild: $(STAMP)
	$(BIN)/dvc repro
	$(BIN)/vernissage results

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

venv: $(STAMP)

# The constraints were tested with the first of these; the others are tried where it is missing.
$(BIN)/python:
	@for name in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	  if "$$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	    echo "making $(VENV) with $$name"; exec "$$name" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "no Python 3.11 to 3.13 with venv was found: install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1

# Installs again only when what is to be installed has changed; an installation that was cut off leaves no stamp.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[test]"
	@touch $(STAMP)

clean-venv:
	rm -rf $(VENV)
