# Everything a checkout needs, from Python 3.11 or newer and make alone. `make` lists the targets.

PYTHON ?= python3
ARGS ?=
PREFIX ?= /opt/snakeline
# Two for each core: most tests wait for processes.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))

VENV := .venv
SNAKEMAKE_VENV := .venv-snakemake
SNAKEMAKE := $(SNAKEMAKE_VENV)/bin/snakemake
# The oldest Snakemake that is supported, for the tests alone.
OLDEST_VENV := .venv-snakemake-oldest
SNAKELINE := $(VENV)/bin/snakeline
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet

# Stamps: each says that an environment holds what its lock file names.
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
ENGINE := $(SNAKEMAKE_VENV)/.engine
OLDEST := $(OLDEST_VENV)/.engine
# What says whether an RO-Crate is one, for the tests alone.
VALIDATOR_VENV := .venv-validator
VALIDATOR := $(VALIDATOR_VENV)/.tool
PEERS_VENV := .venv-bench
PEERS := $(PEERS_VENV)/.peers

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(RUNTIME) ## Run ten jobs on the stand-in, then ten on real Snakemake
	@$(SNAKELINE) demo $(ARGS)
	@echo
	@if $(MAKE) --no-print-directory snakemake-env; then \
	  $(SNAKELINE) demo --engine snakemake --snakemake $(SNAKEMAKE) $(ARGS); \
	else \
	  echo; \
	  echo "Real Snakemake could not be installed; the reason is above. The demo on the stand-in is complete."; \
	  echo "Once the package index can be reached, run this again; or use a Snakemake you have:"; \
	  echo "  $(SNAKELINE) demo --engine snakemake --snakemake /path/to/snakemake"; \
	fi

.PHONY: serve
serve: $(RUNTIME) ## Start the service on http://127.0.0.1:8000 (settings: SNAKELINE_...)
	@exec $(SNAKELINE) serve

.PHONY: install
install: ## Install the service in PREFIX (default /opt/snakeline), with real Snakemake in PREFIX/snakemake
	@# The service and its jobs have users of their own, who have to read it whatever root's umask is.
	@umask 022; $(MAKE) --no-print-directory .install

.PHONY: .install
.install:
	@if [ -e "$(PREFIX)" ] && [ ! -e "$(PREFIX)/pyvenv.cfg" ] && [ -n "$$(ls -A "$(PREFIX)")" ]; then \
	  echo "$(PREFIX) holds something else: name an empty or new folder, make install PREFIX=FOLDER" >&2; exit 1; fi
	@{ mkdir -p "$(PREFIX)" && [ -w "$(PREFIX)" ]; } 2>/dev/null || { \
	  echo "$(PREFIX) cannot be written: be root, or name a folder of yours, make install PREFIX=FOLDER" >&2; exit 1; }
	@echo "Installing Snakeline in $(PREFIX) ..."
	$(call make-venv,"$(PREFIX)")
	@"$(PREFIX)/bin/python" $(PIP_INSTALL) --require-hashes -r requirements-otel.lock
	@set -e; build=$$(mktemp -d); trap 'rm -rf "$$build"' EXIT; \
	$(PYTHON) -m venv "$$build/venv"; \
	"$$build/venv/bin/python" $(PIP_INSTALL) --require-hashes -r requirements-build.lock; \
	"$$build/venv/bin/python" -m pip --disable-pip-version-check wheel --quiet --no-build-isolation --no-deps --wheel-dir "$$build" .; \
	"$(PREFIX)/bin/python" $(PIP_INSTALL) --no-deps --no-index --force-reinstall "$$build"/*.whl
	@echo "Installing Snakemake in $(PREFIX)/snakemake ..."
	$(call make-venv,"$(PREFIX)/snakemake")
	@"$(PREFIX)/snakemake/bin/python" $(PIP_INSTALL) --require-hashes -r requirements-snakemake.lock
	@echo "Installed: $(PREFIX)/bin/snakeline and $(PREFIX)/snakemake/bin/snakemake"

.PHONY: test
test: $(DEV) test-tools ## Run all tests (ARGS="-k name" for some)
	@# In the order they are found: the longest modules have few tests and would come last, one by one.
	@$(VENV)/bin/pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

.PHONY: soak
soak: $(DEV) test-tools ## Run the long fault tests: random kills, power cuts, every system call (half an hour)
	@$(VENV)/bin/pytest -m soak -rA --timeout 3600 $(ARGS)

.PHONY: image-test
image-test: $(DEV) ## Build the container image without a registry and test it in a Docker of its own (as root)
	@$(VENV)/bin/pytest -m image $(ARGS) tests/image

# Programs beside ours: without them there is less to test.
.PHONY: test-tools
test-tools:
	@for tool in snakemake-env snakemake-env-oldest validator-env; do \
	  $(MAKE) --no-print-directory $$tool || \
	    echo "make $$tool did not succeed: the tests that need it are skipped."; \
	done

.PHONY: mutants
mutants: $(DEV) ## Remove each guard against loss, one at a time: some test must fail (ARGS="--help")
	@$(VENV)/bin/python -m tests.mutants $(ARGS)

.PHONY: check
check: $(DEV) ## Check format, lint, layers and types
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

.PHONY: bench
bench: $(DEV) snakemake-env ## Measure speed against peers and limits, as ratios
	@$(MAKE) --no-print-directory $(PEERS) || echo "Some peers could not be installed: they are left out."
	@$(VENV)/bin/python -m benchmarks $(ARGS)

.PHONY: snakemake-env
snakemake-env: $(ENGINE) ## Install real Snakemake in an environment of its own

.PHONY: snakemake-env-oldest
snakemake-env-oldest: $(OLDEST) ## Install the oldest supported Snakemake, for the tests

.PHONY: validator-env
validator-env: $(VALIDATOR) ## Install the official validator of RO-Crates, for the tests

.PHONY: lock
lock: ## Rewrite the lock files from pyproject.toml (ARGS=--upgrade for newer versions)
	@set -e; \
	tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	$(PYTHON) -m venv "$$tools"; "$$tools/bin/python" $(PIP_INSTALL) uv; \
	compile() { \
	  "$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --custom-compile-command "make lock" $(ARGS) "$$@"; \
	}; \
	compile pyproject.toml --extra server -o requirements.lock; \
	compile --group build -c requirements.lock -o requirements-build.lock; \
	compile pyproject.toml --extra server --extra otel -c requirements.lock -o requirements-otel.lock; \
	compile pyproject.toml --group dev --extra server --extra otel -c requirements-otel.lock -c requirements-build.lock \
	  -o requirements-dev.lock; \
	compile requirements-snakemake.in -o requirements-snakemake.lock; \
	compile requirements-snakemake-oldest.in -o requirements-snakemake-oldest.lock; \
	compile requirements-validator.in -o requirements-validator.lock; \
	if [ -f benchmarks/requirements-bench.in ]; then \
	  compile benchmarks/requirements-bench.in -o benchmarks/requirements-bench.lock; \
	fi

.PHONY: clean
clean: ## Remove environments and caches, never your data (.snakeline)
	rm -rf $(VENV) $(SNAKEMAKE_VENV) $(OLDEST_VENV) $(VALIDATOR_VENV) $(PEERS_VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- environments

# $(call make-venv,FOLDER): a working virtual environment, or one line on what to install.
define make-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@# With its pip: an environment of a Python that was upgraded since still starts, and has none.
	@$(1)/bin/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(1)
endef

# The build backend is locked too, so that installing the project itself fetches nothing unlisted.
$(RUNTIME): requirements.lock requirements-build.lock pyproject.toml
	$(call make-venv,$(VENV))
	@echo "Installing Snakeline in $(VENV) ..."
	@$(VENV)/bin/python $(PIP_INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	@$(VENV)/bin/python $(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	@echo "Installing the tools for tests and checks in $(VENV) ..."
	@$(VENV)/bin/python $(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(ENGINE): requirements-snakemake.lock
	$(call make-venv,$(SNAKEMAKE_VENV))
	@echo "Installing Snakemake in $(SNAKEMAKE_VENV) ..."
	@$(SNAKEMAKE_VENV)/bin/python $(PIP_INSTALL) --require-hashes -r requirements-snakemake.lock
	@touch $@

$(OLDEST): requirements-snakemake-oldest.lock
	$(call make-venv,$(OLDEST_VENV))
	@echo "Installing the oldest supported Snakemake in $(OLDEST_VENV) ..."
	@$(OLDEST_VENV)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

$(VALIDATOR): requirements-validator.lock
	$(call make-venv,$(VALIDATOR_VENV))
	@echo "Installing the validator of RO-Crates in $(VALIDATOR_VENV) ..."
	@$(VALIDATOR_VENV)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

# What the benchmarks compare with; as root, also the peers that the distribution has.
$(PEERS): benchmarks/requirements-bench.lock
	$(call make-venv,$(PEERS_VENV))
	@echo "Installing the benchmarks' peers in $(PEERS_VENV) ..."
	@$(PEERS_VENV)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v parallel >/dev/null; then \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends parallel task-spooler >/dev/null; \
	fi || echo "parallel and task-spooler could not be installed."
	@touch $@
