# make demo: set up, make data, train, test, score, draw.   make test: set up, run the tests.
# python3.11 is what is tested; python3.12, what current Ubuntu brings, serves where 3.11 is missing.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12; do if $$p -c '' 2>/dev/null; then echo $$p; exit; fi; done; echo python3.11)
endif
VENV ?= .venv
PY := $(VENV)/bin/python
DEMO_DIR ?= work_dirs/demo
TEST_JOBS ?= 2

.PHONY: help env demo test lint docs format clean
help:
	@echo "make demo   set up .venv, then synthetic data, training, scoring and pictures (about 12 minutes after set-up)"
	@echo "make test   set up .venv, then run the tests"
	@echo "make lint   ruff and mypy on our own code"
	@echo "make docs   the documents as a site, in build/site"
	@echo "make env    only set up .venv"

env:
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is missing. Fix: sudo apt-get install -y python3.11 python3.11-venv python3.11-dev (on Ubuntu 24.04: the same of python3.12)"; exit 1; }
	@PYTHON=$(PYTHON) VENV=$(VENV) bash tools/setup_env.sh

demo: env
	$(PY) tools/demo.py --work-dir $(DEMO_DIR)

test: env
	$(PY) -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_ARGS)

lint: env
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: env
	$(PY) -m mkdocs build --strict

format: env
	$(PY) -m ruff check --fix .

clean:
	rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache
