# `make repro` and `make test` each work alone on a machine with Python 3.11+, git and make: .venv is built first when it
# is missing or older than pyproject.toml.

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
# a hundred processes start, each of which would compile all modules anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: repro test lint slow bench golden constraints clean

repro: $(READY)            ## raw pictures to trained, measured nets and their table
	dvc repro
	@echo "page: data/report/index.html   table: data/report/results.csv   runs: .venv/bin/snnseg ui"

test: $(READY)             ## all tests
	OMP_NUM_THREADS=1 python -m pytest -n auto --durations 25

lint: $(READY)             ## style
	ruff check

slow: $(READY)             ## all settings of whole nets, and full-size checks, which need the official files below data/raw
	python -m pytest -m slow -s

bench: $(READY)            ## a training step beside other libraries, and its memory; pip install -c constraints.txt -e '.[bench]' brings them
	python -m benchmarks.train_step && python -m benchmarks.memory && python -m benchmarks.scan

golden: $(READY)           ## write tests/golden anew, after a change that is meant to change losses
	python -m pytest tests/test_golden.py --refresh-golden

constraints: pyproject.toml   ## resolve the newest versions in a fresh environment and write them down
	rm -rf $(VENV)-constraints && $(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/pip install --quiet -e '.[dev]'
	$(VENV)-constraints/bin/pip freeze --exclude-editable | sed 's/+cpu$$//; s/ @ .*//' > constraints.txt
	rm -rf $(VENV)-constraints

clean:                     ## remove what was produced, keep data/raw
	rm -rf data/store data/run data/tune data/model data/result data/report data/mlflow data/bench .dvc/cache .dvc/tmp dvc.lock

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "snnseg needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --constraint constraints.txt -e '.[dev]'
	touch $@
