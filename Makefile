# make tour         install, then show the main job on real input, offline
# make test         install, then the notebooks and the tests that stay in one process
# make test-all     every test: also those that start programs, such as kernels, browsers and terminals
# make test-long    the same with what takes long: hypothesis runs free, the lessons also in nbdev's shell
# make test-cpus    what a processor can change, on the instruction sets and thread counts that this machine can play
# make test-lowest  every test with the lowest versions that setup.cfg admits
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
# The tests and the notebooks may reach this machine only: see tests/offline/sitecustomize.py. Waiting threads sleep, or one busy
# program makes them several times as slow.
TESTING := PYTHONPATH=$(CURDIR)/tests/offline OMP_WAIT_POLICY=passive MPLBACKEND=Agg
THREADS ?= 1

# Where it is set, each of some hundred processes would compile all that it loads
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help tour test test-all test-nbs test-py test-long test-cpus test-lowest export lessons docs bench clean

help:
	@sed -n 's/^# make /make /p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fastcourse needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# uv installs in half a minute what takes pip three; where it cannot, such as behind an index that only pip knows, pip does.
# Neither compiles: of 17,000 Python files a quarter is ever loaded, and is compiled then.
install = $(BIN)/python -m pip install -q --disable-pip-version-check uv==0.13.9 && \
  $(BIN)/python -m uv pip install -q --system-certs -c $(CONSTRAINTS) $(1) || \
  $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -c $(CONSTRAINTS) $(1)

$(VENV)/.installed: setup.cfg $(CONSTRAINTS) pyproject.toml | $(BIN)/python
	$(call install,-e .)
	@touch $@

# In one go with what the package needs
$(VENV)/.installed-dev: setup.cfg $(CONSTRAINTS) pyproject.toml | $(BIN)/python
	$(call install,-e '.[dev]')
	@touch $(VENV)/.installed $@

# What the tests of the pages in Chromium look for people's hindrances with; they say so and skip where it cannot be had
node_modules/axe-core:
	@if command -v npm >/dev/null; then npm install --prefix . --silent --no-save --no-audit --no-fund axe-core@4.14.1 || true; fi

$(VENV)/.installed-docs: $(VENV)/.installed
	$(call install,-e '.[docs]')
	@touch $@

tour: $(VENV)/.installed
	$(BIN)/fastcourse tour $(TOUR)

test: export SELECTED = -m "not programs"
test test-all: test-nbs test-py

# The lessons run in a real kernel, in tests/test_lessons_in_kernels.py. One thread a worker.
test-nbs: $(VENV)/.installed-dev
	@$(TESTING) OMP_NUM_THREADS=$(THREADS) $(BIN)/nbdev-test --skip-folder-re lessons --n-workers 2 --timing

# Which, and in which order: tests/conftest.py. Three workers for two cores: some wait for a browser or a server.
test-py: $(VENV)/.installed-dev | node_modules/axe-core
	@$(TESTING) OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(SELECTED) tests

test-long: export FASTCOURSE_TEST_LONG = 1
test-long: test-nbs test-py
	@$(TESTING) OMP_NUM_THREADS=1 $(BIN)/nbdev-test nbs/lessons --n-workers 2 --timing

test-cpus: $(VENV)/.installed-dev
	@$(BIN)/python tests/cpus.py

test-lowest:
	@$(MAKE) test-all VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

# make export       write fastcourse/*.py from the notebooks, and the lessons into the package
export: $(VENV)/.installed-dev
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python -c "from fastcourse.editions import pack_lessons; pack_lessons('nbs/lessons', 'images/materials')"

# make lessons      run every lesson and store its output, pictures included
lessons: $(VENV)/.installed-dev
	PYTHONWARNINGS=ignore $(BIN)/nbdev-test nbs/lessons --save --n-workers 1
	$(BIN)/nbdev-clean

# make docs         the site in docs/_build/html; it opens from disk and asks no other host
docs: $(VENV)/.installed-docs
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx -q -W --keep-going -d docs/_build/doctrees docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# make bench        the benchmarks: each prints a table
bench: $(VENV)/.installed-dev
	@for f in tests/benchmarks/bench_*.py; do echo; echo "## $$f"; $(BIN)/python $$f || exit 1; done

clean:
	rm -rf $(VENV) .venv-lowest node_modules build dist *.egg-info docs/_build docs/_generated docs/_mathjax
