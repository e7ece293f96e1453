# make demo    install into .venv, dissect the built-in model, show the result in a browser
# make test    install what the tests need and run all that fit into fifteen minutes
# make help    the rest

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PAGE := $(shell find web -type f -not -path 'web/node_modules/*' 2>/dev/null)
NATIVE := $(wildcard microtome/dictionaries/kernels/native/*.[ch])
INSTALLED_FROM := pyproject.toml constraints.txt hatch_build.py $(NATIVE) $(PAGE)
RUN := runs/specimen

.PHONY: help demo install test test-slow check-python check-style chromium bench format clean

help:
	@echo "make demo       install into .venv, dissect the built-in model, show the result in a browser"
	@echo "make test       install what the tests need, then style, types and every test that is not slow"
	@echo "make test-slow  the tests that take longer"
	@echo "make bench      how long the steps of the main job take, beside what bounds them"
	@echo "make format     put the code into its one shape"
	@echo "make clean      remove .venv and what was built (runs/ stays)"

demo: install
	@if grep -qs '"stage": *"done"' $(RUN)/run.json; then echo "The dissection in $(RUN) is finished; showing it."; \
	 else echo "Dissecting the built-in model (a few minutes)."; \
	   $(BIN)/microtome dissect specimen --into $(RUN) --resume; fi
	@$(BIN)/microtome browse runs/

install: .venv/installed

check-python:
	@if [ -z "$(PYTHON)" ]; then echo "Microtome needs Python 3.11 or newer; install one, or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11, which Microtome needs; name a newer one: make demo PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; install its venv package (Debian: apt-get install python3-venv)" >&2; exit 1; }

.venv/bin/python: | check-python
	@echo "Making .venv with $(PYTHON)."
	@$(PYTHON) -m venv .venv

.venv/installed: $(INSTALLED_FROM) | .venv/bin/python
	@echo "Installing Microtome into .venv and building its page (minutes the first time)."
	@$(PIP) --editable .
	@if [ ! -f microtome/browser/static/index.html ]; then echo "The browser's page could not be built; the lines above say why." >&2; exit 1; fi
	@touch $@

.venv/tested: .venv/installed
	@echo "Installing what the tests need."
	@$(PIP) --editable '.[test]'
	@touch $@

chromium:
	@if command -v chromium chromium-browser >/dev/null 2>&1; then :; \
	 elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then echo "Installing chromium for the browser's tests."; \
	   { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends chromium; } >/dev/null 2>&1 \
	   || echo "chromium could not be installed: the browser's tests will be skipped."; \
	 else echo "chromium is absent: the browser's tests will be skipped (apt-get install chromium)."; fi

check-style: .venv/tested
	@echo "Style and types."
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyright --pythonpath $(BIN)/python

test: check-style chromium
	@echo "Tests."
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses 8 --dist loadfile

test-slow: .venv/tested chromium
	@$(BIN)/python -m pytest -q -m slow --timeout 3600

bench: install
	@$(BIN)/microtome bench

format: .venv/tested
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

clean:
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis microtome/browser/static web/node_modules
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
