# Atoll's house rules as commands. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := atoll tunnel providers autoscaler agent federation tests bench
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(STAMP) ## make .venv from hashed requirements (only when they changed)

# A Python of 3.11 to 3.13: `make venv PYTHON=/path/to/python` names one, else the first that fits is taken.
$(STAMP): requirements/dev.txt pyproject.toml
	@fits='import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; \
	if ! $(BIN)/python -c "$$fits" 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
			if $$python -c "$$fits" 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "make: no Python 3.11, 3.12 or 3.13 found; install one (Debian 12: apt-get install python3 python3-venv)" \
				"or name it: make venv PYTHON=/path/to/python" >&2; exit 1; \
		fi; \
		rm -rf $(VENV); \
		$$found -m venv $(VENV) || { rm -rf $(VENV); \
			echo "make: $$found cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: demo
demo: venv ## the main job, end to end: local agent, two pretend sites, 30 real sessions
	$(BIN)/atoll demo

.PHONY: demo-aws
demo-aws: venv ## the demo's sessions burst to EC2 as moto shows it; its machines really run their user data
	$(BIN)/python -m tests.clouds.demo aws

.PHONY: check
check: venv system lint types imports test ## everything that must hold; what CI runs

.PHONY: system
system: ## system packages the tests need (installed when root on Debian, else named)
	@sh tests/system-packages

.PHONY: lint
lint: venv ## format and lint
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

.PHONY: types
types: venv ## mypy, strict
	$(BIN)/mypy

.PHONY: imports
imports: venv ## the three floors (import-linter)
	$(BIN)/lint-imports

.PHONY: structure
structure: venv ## sizes, docstrings, pure cores, wheel, links
	$(BIN)/python -m pytest -q tests/structure

APPS := .venv-apps

# Jupyter and TensorBoard, which tests use through the gateway as sessions: what they need stays out of our environment.
$(APPS)/.installed: requirements/apps.txt | venv
	$(BIN)/python -m venv --without-pip $(APPS)
	$(BIN)/uv pip install --quiet --python $(APPS)/bin/python --require-hashes -r requirements/apps.txt
	@touch $@

.PHONY: test
# Four processes on two cores: most tests with real processes wait most of their time.
test: venv $(APPS)/.installed ## all tests but those with targets of their own (check-vm, check-crash)
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m "not vm and not crash"

.PHONY: check-vm
check-vm: venv system ## the boot script on a virtual machine, from its user data to its own end (minutes)
	$(BIN)/python -m pytest -q -s -m vm tests/e2e

.PHONY: check-crash
check-crash: venv system ## kill -9 at every step that a cloud hangs on, with each driver's server (minutes)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -rP tests/e2e/test_cloud_crash_points.py

SERVERS := .venv-openstack

$(SERVERS)/.installed: requirements/openstack-servers.txt | venv
	$(BIN)/python -m venv $(SERVERS)
	$(BIN)/uv pip install --quiet --python $(SERVERS)/bin/python --require-hashes -r requirements/openstack-servers.txt
	@touch $@

.PHONY: check-openstack
check-openstack: venv $(SERVERS)/.installed ## the openstack driver against a real keystone, placement, glance, neutron and nova
	@command -v mariadbd >/dev/null || PATH=$$PATH:/usr/sbin command -v mariadbd >/dev/null || \
		{ test "$$(id -u)" = 0 && apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
		apt-get -qq install -y --no-install-recommends mariadb-server >/dev/null; } || \
		{ echo "make: MariaDB is needed (Debian: apt-get install mariadb-server)" >&2; exit 1; }
	$(BIN)/python -m tests.openstack prepare
	ATOLL_TEST_OPENSTACK=required $(BIN)/python -m pytest -q tests/openstack tests/providers/openstack \
		tests/contracts/providers tests/e2e/test_clouds.py -k openstack

.PHONY: format
format: venv ## rewrite the sources in the house's format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

PEERS := .venv-bench

# An environment of its own: the peers (Ray, numba) and what they need stay out of the tests' environment.
$(PEERS)/.installed: requirements/bench.txt pyproject.toml | venv
	$(BIN)/python -m venv $(PEERS)
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --require-hashes -r requirements/bench.txt
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: bench
bench: $(PEERS)/.installed ## every benchmark at its quick size, with its peers
	@for name in bench/place.py bench/plan.py bench/trace.py bench/spot.py bench/predict.py bench/tunnel.py bench/start.py bench/memory.py; do \
		module=$$(basename $$name .py); echo "== bench.$$module"; $(PEERS)/bin/python -m bench.$$module --quick || exit 1; done

.PHONY: lock
lock: venv ## compile requirements/*.txt anew from pyproject.toml
	$(COMPILE) pyproject.toml -o requirements/base.txt
	$(COMPILE) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml requirements/bench.in -c requirements/dev.txt -o requirements/bench.txt
	$(COMPILE) requirements/apps.in -o requirements/apps.txt
	$(subst --universal,,$(COMPILE)) requirements/openstack-servers.in -o requirements/openstack-servers.txt

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(VENV) $(SERVERS) $(PEERS) $(APPS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
