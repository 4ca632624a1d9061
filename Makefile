# Each target does its own set-up on a fresh machine (tools/setup.sh); a second run starts at once.
#   make run CPU=1            CPU builds although there is an NVIDIA GPU
#   make test PYTHON=python3  the interpreter to make .venv with (3.11 or newer)
PYTHON ?=
CPU ?=
export PYTHON CPU
# Modules stay compiled whatever the environment says: tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

PY := .venv/bin/python

.PHONY: help setup run rate test test-all bench lint format
.NOTPARALLEL:

help:
	@echo "make run       the studio on http://127.0.0.1:7860"
	@echo "make rate PACK=FILE   only rate a trial pack: a light install, no torch"
	@echo "make test      lint, types and every test but the slow ones and those that need a GPU"
	@echo "make test-all  the slow ones too, and with a GPU those that need it"
	@echo "make bench     the benchmarks"
	@echo "make lint      ruff and mypy;  make format  ruff's formatter;  make setup  install only"

setup:
	@tools/setup.sh app

run: setup
	@exec $(PY) app.py

rate:
	@[ -n "$(PACK)" ] || { echo "which pack? make rate PACK=FILE" >&2; exit 2; }
	@tools/setup.sh rating
	@STUDIO_RATE="$(PACK)" exec .venv-rating/bin/python app.py

test: lint
	@tools/setup.sh test
	$(PY) -m pytest -m "not slow and not gpu"

test-all: lint
	@tools/setup.sh test
	@if tools/setup.sh has-gpu; then marks=; else \
		marks="not gpu"; echo "no NVIDIA GPU: leaving out the tests marked gpu"; fi; \
	$(PY) -m pytest -m "$$marks"

bench:
	@tools/setup.sh test
	$(PY) -m bench

lint:
	@tools/setup.sh dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format:
	@tools/setup.sh dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
