# The one door. Needs Python >= 3.11, make and a package index; everything else goes into .venv.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
SEEDS  ?= 1000
SECONDS ?= 20
FIRST  ?= 0
MINUTES ?= 60

BIN := $(VENV)/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.DEFAULT_GOAL := help
.PHONY: help check audit sbom format face test test-browser test-ceph soak screenshots demo docs bench bench-full bench-ceph bench-report bench-guard simulate model fuzz clean

help: ## say what can be made (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The environment ---------------------------------------------------------------------------
# One stamp per extra. They hang on one another, so that `make -j` installs one at a time.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python >= 3.11 is needed; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.base: $(VENV)/.created pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.audit: $(VENV)/.created pyproject.toml
	$(PYTHON) -m venv $(VENV)/audit
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/audit/bin/python -m pip install --quiet 'pip-audit>=2.7' 'cyclonedx-bom>=7'
	@touch $@

# What to do in it --------------------------------------------------------------------------

check: $(VENV)/.test audit ## formatting, lint, types, known vulnerabilities of what is installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: $(VENV)/.test ## known vulnerabilities, where pip-audit and the service that knows them are reached
	@if $(MAKE) --no-print-directory $(VENV)/.audit; then \
	    packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	    $(VENV)/audit/bin/python scripts/audit.py "$$packages"; \
	else echo "not audited: pip-audit cannot be installed here" >&2; fi

sbom: $(VENV)/.audit ## what an installation consists of, into dist/sbom.json (CycloneDX)
	$(PYTHON) -m venv --clear $(VENV)/plain
	PIP_DISABLE_PIP_VERSION_CHECK=1 $(VENV)/plain/bin/python -m pip install --quiet .
	$(VENV)/audit/bin/python scripts/sbom.py $(VENV)/plain/bin/python dist/sbom.json

format: $(VENV)/.test ## put files in form, mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

face: $(VENV)/.test ## the sync face written anew, after a change of the asyncio API
	$(BIN)/python scripts/sync_face.py

test: $(VENV)/.test ## the tests, without Ceph and without slow ones (ARGS="-k writer" for a few)
	$(BIN)/python -m pytest -n 2 --dist worksteal --benchmark-disable $(ARGS)

# with_ceph COMMAND: run it beside a Ceph that comes up for it, or this fails. Whatever happens, it is taken down again.
define with_ceph
@set -eu; \
dir=$$(mktemp -d); \
trap 'scripts/ceph down "$$dir" || true; rm -rf "$$dir"' EXIT; \
trap 'exit 130' HUP INT TERM; \
scripts/ceph up "$$dir"; \
. "$$dir/env"; \
: "$${LOGSTORE_CEPH_ENDPOINT:?Ceph did not say where it is}"; \
$(1)
endef

test-ceph: $(VENV)/.test ## the contract, and trouble, on a real S3 service, brought up for the occasion; nothing is skipped
	$(call with_ceph,$(BIN)/python -m pytest -m ceph $(ARGS))

soak: $(VENV)/.test ## a log at work on Ceph under random troubles, MINUTES=60, detached; says where its report will be
	$(BIN)/python -m tests.trouble --detach --minutes $(MINUTES) $(ARGS)

test-browser: $(VENV)/.docs ## the console and the site in a headless Chromium
	$(BIN)/python -m pytest -m browser $(ARGS)

screenshots: $(VENV)/.test ## the pictures of docs/console.md, taken of the demo
	$(BIN)/python -m tests.console.screenshots $(ARGS)

demo: $(VENV)/.base ## a control plane on one store: web, agents, ops, two kill -9 (ARGS=s3://... for another)
	$(BIN)/python -m examples.pipecd.demo $(ARGS)

LAST_RUN := .benchmarks/last.json
BENCH := $(BIN)/python -m pytest benchmarks --benchmark-json=$(LAST_RUN)

bench: $(VENV)/.bench ## the benchmarks beside peers and limits, a quarter of an hour (ARGS="-k append" for a few)
	@mkdir -p $(dir $(LAST_RUN))
	$(BENCH) $(ARGS)

bench-full: $(VENV)/.bench ## the same with millions of events and documents, hours
	@mkdir -p $(dir $(LAST_RUN))
	$(BENCH) --full $(ARGS)

bench-ceph: $(VENV)/.bench ## those on a real S3 service, brought up for the occasion
	@mkdir -p $(dir $(LAST_RUN))
	$(call with_ceph,$(BENCH) -m ceph $(ARGS))

bench-report: $(VENV)/.bench ## what the last run measured, into docs/benchmarks.md, its charts and benchmarks/results
	$(BIN)/python -m benchmarks.report $(LAST_RUN) $(ARGS)

bench-guard: $(VENV)/.bench ## whether the last run's ratios are worse than those last recorded
	$(BIN)/python -m benchmarks.guard $(LAST_RUN) $(ARGS)

docs: $(VENV)/.docs ## the site, into site/; a warning is an error (so not --quiet, which counts none)
	@$(BIN)/python -m doctest scripts/docs_site.py
	@PATH="$(abspath $(BIN)):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	@echo "open file://$(CURDIR)/site/index.html"

simulate: $(VENV)/.test ## whole systems under SEEDS=1000 seeds from FIRST=0 (ARGS="--everything --coverage")
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

model: $(VENV)/.test ## the protocol's explicit-state models
	$(BIN)/python -m tests.model $(ARGS)

fuzz: $(VENV)/.test ## every decoder, by odd inputs, SECONDS=20 each (ARGS="--target segment" for one)
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

clean: ## remove what make has made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks build dist site
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
