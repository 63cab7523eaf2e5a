# make demo      set up .venv, generate, train a character model on real text for half a minute
# make test      set up .venv, lint, type-check, compare generated/ with the specs, run the tests
# make test-all  the same with the slow tests
# make bench     speed on this machine (what is compared: benchmarks/README.md)
# make gpu-check on a machine with an NVIDIA GPU: the tests that need one, compute-sanitizer if it is there, then speed
# make clean     remove .venv and everything else that is made here, but not generated/
#
# Any Python from 3.11 on does; one that is not found by itself is named: make test PYTHON=/path/to/python3

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml
DEMO ?= --hidden 128 --seconds 30

.PHONY: demo test test-all lint bench gpu-check clean

demo: $(VENV)/.demo
	$(BIN)/cellspec generate
	$(BIN)/python examples/char_lm.py $(DEMO)

test: lint
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/cellspec generate --check

bench: $(VENV)/.demo
	$(BIN)/cellspec generate
	$(BIN)/python benchmarks/cpu.py

gpu-check: $(VENV)/.test
	$(BIN)/cellspec generate
	$(BIN)/python -m pytest -m gpu -rs
	for tool in memcheck racecheck; do \
	    if ! command -v compute-sanitizer > /dev/null; then echo "no compute-sanitizer here: $$tool is left out"; continue; fi; \
	    compute-sanitizer --tool $$tool --error-exitcode 1 $(BIN)/python -m pytest -q -m gpu -k lstm tests/test_cupy_modules.py || exit 1; \
	done
	$(BIN)/python benchmarks/gpu.py --quick

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what has been installed, so that it is not done again until pyproject.toml changes.
$(VENV)/.demo: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.demo

$(BIN)/python:
	@for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "cellspec needs Python 3.11 or newer with the venv module, and there is none $(if $(PYTHON),at $(PYTHON),on the PATH)." >&2; \
	exit 1
