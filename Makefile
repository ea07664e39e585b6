# Everything sets up .venv by itself; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "calidrift: no '$(PYTHON)' on this machine; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "calidrift: $(PYTHON) is $$($(PYTHON) -V 2>&1), but Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@command -v "$${CXX:-g++}" >/dev/null 2>&1 || { echo "calidrift: no C++ compiler '$${CXX:-g++}'; INT8 kernels are compiled here, so install one (Debian: apt-get install g++) or set CXX" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "calidrift: '$(PYTHON) -m venv' failed; install the venv module (Debian: apt-get install python3-venv)" >&2; exit 2; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[analyzer,dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Train, drift, detect, recalibrate, promote: the whole loop on real images
	$(BIN)/calidrift demo

lint: $(STAMP) ## ruff, mypy --strict, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## Lint, then every test with doctests and coverage
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

bench: $(STAMP) ## Paired ratios with their spread (minutes)
	$(BIN)/python -m pytest tests/benchmarks/run.py

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.*
