# `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check
# mypy and import-linter do not follow an editable install: they get a folder in which `tagbus` looks installed.
TREE   := .cache/tree
DATA   ?= ../shared/data/yso-titles
KAFKA  ?= mock

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench evaluate install wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing tagbus and its core dependencies into $(VENV)"
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "installing what the tests need (torch among it: some 5 GB, a minute or two)"
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e '.[test,embedded,train]'
	@touch $@

install: $(VENV)/.core ## install tagbus into .venv

demo: $(VENV)/.core ## tag real titles from Kafka to Kafka (KAFKA=apache: exactly once on Apache Kafka)
	$(BIN)/tagbus demo --kafka $(KAFKA)

test: lint ## run all tests, the slowest ones are named at the end
	$(BIN)/pytest

lint: $(VENV)/.test $(TREE)/tagbus ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(TREE) $(BIN)/mypy
	PYTHONPATH=$(TREE) $(BIN)/lint-imports

$(TREE)/tagbus:
	@mkdir -p $@
	@ln -sfn $(CURDIR)/stream $@/stream
	@ln -sfn $(CURDIR)/models $@/models

bench: $(VENV)/.test ## measure encoder, tagger and stream side by side (needs Java and mvn)
	$(BIN)/python bench/stream.py

evaluate: $(VENV)/.core ## quality on DATA=folder with labels.tsv, train.tsv[.xz], val.tsv, test.tsv
	$(BIN)/tagbus evaluate $(DATA) --out bench/results/quality.json

wheel: $(VENV)/.test ## build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what make has made here
	rm -rf $(VENV) .cache build dist *.egg-info
