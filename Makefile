# make tour   install, then show the main job on real input, offline
# make test   install, then every test: the notebooks, then tests/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests and the notebooks may reach this machine only: see tests/offline/sitecustomize.py
OFFLINE := PYTHONPATH=$(CURDIR)/tests/offline

.PHONY: help tour test test-nbs test-py export lessons bench clean

help:
	@sed -n 's/^# make /make /p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "fastcourse needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg constraints.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

tour: $(VENV)/.installed
	$(BIN)/fastcourse tour $(TOUR)

test: test-nbs test-py

# One thread a worker: two workers share two cores
test-nbs: $(VENV)/.installed-dev
	@$(OFFLINE) OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/nbdev-test --n-workers 2 --timing

# The longest file first: one worker has it while the other goes through the rest
test-py: $(VENV)/.installed-dev
	@$(OFFLINE) OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/test_tour.py tests

# make export write fastcourse/*.py from the notebooks
export: $(VENV)/.installed-dev
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean

# make lessons run every lesson and store its output, pictures included
lessons: $(VENV)/.installed-dev
	PYTHONWARNINGS=ignore $(BIN)/nbdev-test nbs/lessons --save --n-workers 1
	$(BIN)/nbdev-clean

# make bench  the benchmarks: each prints a table
bench: $(VENV)/.installed-dev
	@for f in tests/benchmarks/bench_*.py; do echo; echo "## $$f"; $(BIN)/python $$f || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info
