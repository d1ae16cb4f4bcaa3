# Everything runs in an environment of its own, .venv, that any target makes first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/demo: setup.py pyproject.toml igos_pl/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one by: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python cannot make environments here; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[demo]'
	@touch $@

# The tests need many other libraries.
$(VENV)/installed: $(VENV)/demo
	$(BIN)/pip install --quiet --editable '.[demo,test,dev,docs]'
	@touch $@

install: $(VENV)/installed  ## make the environment and install igos_pl into it, with all that the tests need

demo: $(VENV)/demo  ## explain eight real photos; see runs/demo
	$(BIN)/igos-pl demo --output runs/demo

demo-detector: $(VENV)/demo  ## explain the objects of generated pictures; see runs/demo-detector
	$(BIN)/igos-pl demo --detector --output runs/demo-detector

test: install  ## the tests that take minutes in all
	$(BIN)/python -m pytest

test-slow: install  ## the tests that take longer
	$(BIN)/python -m pytest -m slow

check: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## build the documentation site; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@! grep -rE '<(script|link|img|iframe)[^>]*(src|href)="?https?:' site || \
		{ echo "The site must not fetch anything from other hosts"; exit 1; }

pictures: install  ## draw the pictures of the documentation, and the notebook's
	$(BIN)/python docs/pictures.py
	$(BIN)/jupyter execute --inplace docs/notebook.ipynb

bench: install  ## quality of the demos' masks beside a blob, a filled box and random cells; their stability
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/quality.py --detector
	$(BIN)/python benchmarks/stability.py

clean:  ## remove the environment and what tools left
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache

.PHONY: help install demo demo-detector test test-slow check docs pictures bench clean
