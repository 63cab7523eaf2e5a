# make demo      set up .venv, generate, train a character model on real text for half a minute
# make test      set up .venv, lint, type-check, compare generated/ with the specs, run the tests
# make test-all  the same with the slow tests
# make lint      all of that but the tests
# make coverage  which lines of cellspec/ the tests of make test run
# make bench     set up .venv with the peers, measure speed on this machine beside them: about an hour and a half on two cores
#                (what is compared, and shorter runs: benchmarks/README.md)
# make gpu-check on a machine with an NVIDIA GPU, its driver and nothing else: six cells in four dtypes, three shapes beside cuDNN
#                (PEER_PYTHON=/path/to/a/python/with/torch), both within eight minutes; then the tests, compute-sanitizer, speed
# make docs      make the site of docs/ in site/, strictly: a dead link is an error
# make pages     write anew what the README and docs/ show of the code: excerpts, what commands print, the tables of cells and speed
# make registers count the registers of every CUDA kernel anew (tests/cupy_backend/cuda_budget.json)
# make clean     remove .venv and everything else that is made here, but not generated/
#
# Any Python from 3.11 on does; one that is not found by itself is named: make test PYTHON=/path/to/python3

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml
DEMO ?= --hidden 128 --seconds 30
# Where make bench writes (RESULTS.json, RESULTS-sweep.json, RESULTS-sweep.svg), and how it measures: BENCH=--quick
RESULTS ?= benchmarks/results/latest
BENCH ?=
# Where make gpu-check writes a result file after each stage, which Python has PyTorch, and which stages: GPU_STAGES=cells,cudnn
GPU_RESULTS ?= benchmarks/results/gpu
PEER_PYTHON ?=
GPU_STAGES ?=
# Where PyTorch for the CPU alone is to be had; elsewhere than on Linux that is the usual one.
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname -s)),https://download.pytorch.org/whl/cpu)

.PHONY: demo test test-all lint docs pages coverage bench gpu-check registers clean

demo: $(VENV)/.demo
	$(BIN)/cellspec generate
	$(BIN)/python examples/char_lm.py $(DEMO)

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	env NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/cellspec generate --check
	$(BIN)/cellspec generate --check --backend torch elman lstm lstm_concat gru gru_after gru_concat
	$(BIN)/cellspec generate --check --backend jax elman lstm lstm_concat gru gru_after gru_concat

docs: $(VENV)/.docs
	env NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pages: $(VENV)/.test
	$(BIN)/python tests/support/documents.py

coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m "not slow" --cov --cov-report=term

bench: $(VENV)/.bench
	$(BIN)/cellspec generate
	$(BIN)/python benchmarks/cpu.py $(BENCH) --json $(RESULTS).json
	$(BIN)/python benchmarks/cpu.py $(BENCH) --sweep --json $(RESULTS)-sweep.json --plot $(RESULTS)-sweep.svg

gpu-check: $(VENV)/.gpu
	$(BIN)/python benchmarks/gpu_check.py --results $(GPU_RESULTS) \
	    $(if $(PEER_PYTHON),--peer-python $(PEER_PYTHON)) $(if $(GPU_STAGES),--stages $(GPU_STAGES))

registers: $(VENV)/.test
	PYTHONPATH=tests:tests/support $(BIN)/python tests/cupy_backend/test_cupy_resources.py

clean:
	rm -rf $(VENV) dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define torch_for_cpu
@if [ -n "$(TORCH_INDEX)" ]; then \
  $(BIN)/python -m pip install --quiet --no-deps --retries 1 --index-url $(TORCH_INDEX) torch || echo "the usual build of PyTorch is taken"; \
fi
endef

# The stamps say what has been installed, so that it is not done again until pyproject.toml changes.
$(VENV)/.demo: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(BIN)/python $(SOURCES)
	$(torch_for_cpu)
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	@touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.demo

$(VENV)/.gpu: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[test,cuda13x]'
	@touch $@ $(VENV)/.test $(VENV)/.demo

$(VENV)/.bench: $(BIN)/python $(SOURCES)
	$(torch_for_cpu)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@ $(VENV)/.demo

$(BIN)/python:
	@for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "cellspec needs Python 3.11 or newer with the venv module, and there is none $(if $(PYTHON),at $(PYTHON),on the PATH)." >&2; \
	exit 1
