# Everything sets up .venv by itself; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

# `$(error)` ends make with status 2 and its sentence as the only line; a recipe that fails would
# add a line of make's own below it. It is expanded when a recipe starts, never when make reads this.
has_python = $(if $(shell command -v '$(PYTHON)' 2>/dev/null),,\
  $(error calidrift: there is no '$(PYTHON)' on this machine; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3))
is_new = $(if $(shell '$(PYTHON)' -c 'import sys; print("new" * (sys.version_info >= (3, 11)))' 2>/dev/null),,\
  $(error calidrift: '$(PYTHON)' is $(or $(shell '$(PYTHON)' -V 2>/dev/null),no Python that runs), but Python 3.11 or newer is needed; install it, or name one: make PYTHON=/path/to/python3))
has_venv = $(if $(shell '$(PYTHON)' -c 'import ensurepip, venv; print("both")' 2>/dev/null),,\
  $(error calidrift: '$(PYTHON)' cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)))
has_compiler = $(if $(shell command -v '$(firstword $(CXX))' 2>/dev/null),,\
  $(error calidrift: there is no C++ compiler '$(firstword $(CXX))' on this machine; INT8 kernels are compiled here, so install one (Debian: apt-get install g++), or name one: make CXX=/path/to/c++))

.DEFAULT_GOAL := help
.PHONY: help compiler demo demo-stack lint test bench bench-statistics clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

# The compiler is looked for on every call, even when all is installed: it may have gone since.
compiler:
	@:$(has_compiler)

# The build backend is installed first and used without isolation: isolated builds know no constraints.
# A change of the C tap installs anew, which compiles it.
NATIVE := $(wildcard agent/build_native.py agent/calidrift_agent/_taps/_native/*.[ch])
$(STAMP): pyproject.toml constraints.txt $(NATIVE) | compiler
	@:$(has_python)$(is_new)$(has_venv)
	@$(PIP) --version >/dev/null 2>&1 || '$(PYTHON)' -m venv --clear $(VENV)
	$(PIP) install --quiet -c constraints.txt hatchling editables
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[analyzer,crypto,onnx,otlp,dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Train, drift, detect, recalibrate, promote: the whole loop on real images
	$(BIN)/calidrift demo

demo-stack: $(STAMP) ## The loop with real servers: Prometheus, Alertmanager, the analyzer, a service
	$(BIN)/calidrift demo-stack

lint: $(STAMP) ## ruff, mypy --strict, the layers of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The floor holds in each package by itself; the check is silent, so that pytest speaks last.
test: lint ## Lint, then every test with doctests and coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term
	@for package in agent/calidrift_agent analyzer/calidrift_analyzer; do \
	  $(BIN)/coverage report --include="$$package/*" --fail-under=90 >/dev/null 2>&1 || \
	  { echo "calidrift: tests reach less than 90 % of the lines of $$package; see the table above" >&2; exit 1; }; \
	done

bench: $(STAMP) ## Paired ratios with their spread (minutes)
	$(BIN)/python tests/benchmarks/run.py

bench-statistics: $(STAMP) ## False alarms and delays of the alarms and of others (minutes)
	$(BIN)/python tests/benchmarks/alarms/run.py

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
