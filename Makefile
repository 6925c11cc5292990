# make demo   see a recurrent network learn          make test   what CI runs, with make test-browser
# Both set up .venv by themselves, and again only when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# a core for each process, none to fight over:
TEST := OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

.PHONY: demo install test test-browser bench clean python-is-new-enough

demo: $(VENV)/installed
	$(BIN)/python -m microgrid --out demo_out

install: $(VENV)/installed-dev

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TEST)

# The player, in a real browser: Debian's chromium, or the one that the variable CHROMIUM names.
test-browser: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/browser

bench: $(VENV)/installed
	$(PIP) install --quiet --no-compile --editable '.[bench]'
	$(BIN)/python benchmarks/eager.py
	$(BIN)/python benchmarks/bptt.py --out benchmarks/out
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf $(VENV) build *.egg-info demo_out benchmarks/out examples/out .mypy_cache .pytest_cache .ruff_cache .hypothesis

python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "microgrid needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not to be found)."; \
	  echo "Name another one: make PYTHON=python3.12 ..."; exit 1; }

$(VENV)/bin/python: | python-is-new-enough
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --no-compile --editable '.[plots]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --no-compile --editable '.[dev]'
	@touch $@ $(VENV)/installed
