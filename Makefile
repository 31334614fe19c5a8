# fleet: everything a developer or a first visitor runs. `make` alone tells what there is.
# A fresh machine needs Python 3.11 or newer, make, and (for `make test`) apt with root, or the two servers installed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The tests wait more than they compute: a few files at a time, each by one process with servers of its own.
TEST_PROCESSES ?= 5
APT_INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

.PHONY: help install bytecode collected servers demo demo-kubernetes test test-kubernetes check fuzz format bench soak clean wheel sbom audit hashes docs man

help: ## this list
	@printf 'fleet: YAML manifests in, supervised task workers out\n\n'
	sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

install: $(STAMP) ## a virtual environment in .venv with fleet and its tools: .venv/bin/fleet

# Rebuilt when what is to be installed changes; otherwise this takes no time.
$(STAMP): pyproject.toml constraints.txt
	@usable() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
	if [[ ! -x $(BIN)/python ]] || ! usable $(BIN)/python; then
	  python=
	  for candidate in $${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
	    if usable "$$candidate"; then python=$$candidate; break; fi
	  done
	  if [[ -z $$python ]]; then
	    echo 'fleet needs Python 3.11 or newer, and found none. Install it (Debian, Ubuntu: apt-get install python3 python3-venv)' >&2
	    echo 'or name one: make install PYTHON=/path/to/python3' >&2
	    exit 1
	  fi
	  if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then  # Debian keeps it in a package of its own
	    if [[ $$EUID == 0 ]] && command -v apt-get >/dev/null; then
	      echo 'install: this Python cannot make virtual environments yet, installing python3-venv'
	      apt-get update -qq
	      $(APT_INSTALL) python3-venv >/dev/null
	    else
	      echo "$$python cannot make virtual environments. As root: apt-get install python3-venv" >&2
	      exit 1
	    fi
	  fi
	  "$$python" -m venv --clear $(VENV)
	fi
	echo 'install: fleet and its tools into $(VENV) (a minute or two the first time)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

servers: ## Redis, RabbitMQ, Prometheus and Chromium for the tests (Debian packages; not started as services)
	@missing=()
	command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing+=(redis-server)
	[[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || missing+=(rabbitmq-server)
	command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
	browser=()
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || browser=(chromium)
	if (($${#missing[@]} + $${#browser[@]} == 0)); then exit 0; fi
	if [[ $$EUID != 0 ]] || ! command -v apt-get >/dev/null; then
	  if (($${#missing[@]} == 0)); then exit 0; fi  # without a browser its tests are skipped
	  echo "servers: missing on this machine: $${missing[*]}" >&2
	  echo "  as root: apt-get install --no-install-recommends $${missing[*]}" >&2
	  exit 1
	fi
	echo "servers: installing $${missing[*]} $${browser[*]}"
	# The tests start servers of their own: keep the packages from starting theirs, and leave the policy as it was.
	policy=/usr/sbin/policy-rc.d
	saved=$$(mktemp)
	if [[ -e $$policy ]]; then cp -p "$$policy" "$$saved"; else rm "$$saved"; fi
	trap 'if [[ -e $$saved ]]; then mv "$$saved" "$$policy"; else rm -f "$$policy"; fi' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$$policy"
	chmod 755 "$$policy"
	apt-get update -qq
	if (($${#missing[@]})); then $(APT_INSTALL) "$${missing[@]}" >/dev/null; fi
	if (($${#browser[@]})); then
	  $(APT_INSTALL) "$${browser[@]}" >/dev/null || echo 'servers: no Chromium here; the tests in a browser are skipped' >&2
	fi

# Where no bytecode is kept (PYTHONDONTWRITEBYTECODE), each of a thousand commands would compile what it imports.
bytecode: install
	@$(BIN)/python -m compileall -q fleet pools

# Each process of a run collects every test. What pytest makes of the test modules is kept beforehand, by a process per
# core and not by all at once: about nine seconds of processor time a process, not twenty-five. A module that cannot be imported is told of
# by the run itself.
collected: install
	@if [[ -z "$(PYTEST_ARGS)" ]]; then
	  find tests -name 'test_*.py' -print0 | xargs -0 -n 80 -P "$$(nproc)" env -u PYTHONDONTWRITEBYTECODE \
	    $(BIN)/python -m pytest -p no:cacheprovider --collect-only -q >/dev/null || true
	fi

demo: bytecode ## two fleets in about a minute: apply, real tasks, scale, heal; then a shop on every kind of pool
	@$(BIN)/python examples/quickstart/demo.py

demo-kubernetes: install ## the shop's pods as for Kubernetes, played with podman on this machine; needs no cluster
	@$(BIN)/python examples/07-kubernetes/demo.py

test: bytecode collected servers ## every test, with real supervisord, Redis and RabbitMQ
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
	  $(PYTEST_ARGS)

# Outside the tree: Debian's source is built once, seven minutes on two idle cores, 4 GB meanwhile.
KUBERNETES_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/fleet-kubernetes
test-kubernetes: install ## the contract of a fleet in a cluster, on a real API server built from Debian's source
	@tests/backends/kubernetes/build_apiserver.sh $(KUBERNETES_CACHE)
	FLEET_TEST_KUBERNETES=$(KUBERNETES_CACHE)/bin $(BIN)/python -m pytest --timeout 600 \
	  tests/backends/kubernetes/test_contract.py tests/backends/kubernetes/test_places.py $(PYTEST_ARGS)

check: install ## lint, format, strict types and the layers; under a minute
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/architecture

# Each round looks at new examples; the suite has a short round with the same ones every day.
FUZZ_SECONDS ?= 600
fuzz: install ## hostile files, messages and manifests until a traceback or the end of FUZZ_SECONDS (ten minutes)
	@end=$$((SECONDS + $(FUZZ_SECONDS)))
	while ((SECONDS < end)); do
	  EXPLORE=1 $(BIN)/python -m pytest -q -x tests/properties/test_hostile_input_properties.py tests/core/text
	done

# The same commit gives the same bytes: the backend is pinned, and times are those of the commit.
wheel: install ## the wheel of this commit in dist: the same bytes each time
	@umask 022
	folder=$$(mktemp -d)
	trap 'rm -rf "$$folder"' EXIT
	git -c tar.umask=0022 archive HEAD | tar -x --preserve-permissions --no-same-owner -C "$$folder"
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
	  --no-deps --wheel-dir dist "$$folder"
	sha256sum dist/workerfleet-*.whl

sbom: install ## the bill of materials of what is installed, CycloneDX, in sbom.json
	@$(BIN)/python .ci/sbom.py > sbom.json

audit: install ## the pins against recorded vulnerabilities
	@$(BIN)/python .ci/audit.py

hashes: install ## constraints.hashes.txt: the pins with the hashes of their files
	@$(BIN)/python .ci/hashes.py

docs: install ## the documentation as a site that needs no network: build/docs/site/index.html
	@$(BIN)/python -m docs.build_site

man: install ## a man page for fleet and for each verb: build/man
	@$(BIN)/python -m fleet.cli.man_pages build/man

format: install ## put the code into its one format
	@$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: install servers ## measure against Celery and supervisor, half an hour; results in bench/results
	@for part in cli_start render fleet_scale image idle worker_throughput plain_share loads queues channel balance balance_live metrics dashboard; do
	  $(BIN)/python bench/$$part.py $(BENCH_ARGS)
	done
	$(BIN)/python bench/picture.py
	$(BIN)/python bench/table.py

soak: install servers ## whether memory grows: 200,000 tasks, and a day of rest at a thousand times the speed; a quarter of an hour
	@$(BIN)/python bench/soak.py $(BENCH_ARGS)

clean: ## remove what make made, the virtual environment included
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
