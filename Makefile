# GNU make 3.81 or newer, git, and Python 3.11 or newer with venv: each target below does its own set-up.
#
## make map      environment, demo models and texts, their scores, notebooks 00-13, figures; run again it takes seconds
## make test     environment, lint, types, every test and doctest
## make lab      JupyterLab, opened at the first notebook
##
## PYTHON=python3.12   the Python to build .venv with (default: python3)
## JOBS=2              how many notebooks, or test processes, run at once
## TORCH='...'         what `pip install` shall be told for torch, before anything else: a version, a wheel's path, or
##                     `torch --index-url ...` as PyTorch's own page gives it. Without it pip takes its default build:
##                     CUDA on Linux (a GPU needs nothing more), Metal on macOS. Said once, it is remembered.
##
## To start afresh, delete by hand: .venv (environment), runs/ (models, scores, executed notebooks).

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINS := $(VENV)/constraints.txt

PYTHON ?= python3
JOBS ?= 2
TORCH ?= $(shell cat $(VENV)/torch 2>/dev/null)

# the longest first
EXECUTED := $(patsubst %,runs/%,$(wildcard notebooks/13_*.ipynb notebooks/06_*.ipynb notebooks/0[0-5789]_*.ipynb notebooks/1[0-2]_*.ipynb))
PACKAGE := $(shell find lmmap -name '*.py')
SCORES := $(wildcard runs/demo/scores/*.parquet runs/demo-smollm2/scores/*.parquet)

.PHONY: help map test lab demo executed
.DEFAULT_GOAL := help

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

# `executed` runs in a make of its own, so that it sees the scores that `demo` has just finished.
map: demo
	@OMP_NUM_THREADS=1 $(MAKE) --no-print-directory -j$(JOBS) executed
	@echo
	@echo "pictures            figures/"
	@echo "executed notebooks  runs/notebooks/"
	@echo "scores              runs/demo, runs/demo-smollm2"
	@echo "go on from here     make lab"

demo: $(VENV)/map.stamp
	$(BIN)/lmmap demo

executed: $(EXECUTED)
	@:

runs/notebooks/%.ipynb: notebooks/%.ipynb $(PACKAGE) $(SCORES)
	$(BIN)/lmmap run $< -o $@

test: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

lab: $(VENV)/map.stamp
	$(BIN)/jupyter lab notebooks/01_first_map.ipynb

# The stamps say that what pyproject.toml and constraints.txt ask for is installed.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lmmap needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 1; \
	}
	$(PYTHON) -m venv $(VENV)

$(PINS): constraints.txt | $(BIN)/pip
ifeq ($(strip $(TORCH)),)
	cp constraints.txt $@
else
	$(PIP) install $(TORCH)
	echo "$(TORCH)" > $(VENV)/torch
	grep -v '^torch==' constraints.txt > $@
endif

$(VENV)/map.stamp: pyproject.toml $(PINS)
	$(PIP) install -c $(PINS) -e '.[gguf]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/map.stamp
	$(PIP) install -c $(PINS) -e '.[dev]'
	@touch $@
