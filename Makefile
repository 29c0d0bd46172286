# Every target does its own set-up: a virtual environment from the hash-locked file, and system packages that are missing.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOCS_VENV := .venv-docs
STEP := tools/step
ARGS ?=
SEEDS ?= 100000

.DEFAULT_GOAL := help
.PHONY: help setup packages demo demo-vm test test-install lint unit model api test-chart test-units docs test-vm test-vm-all test-cluster observe dashboard-picture sim bench crds site artifact image image-lock test-image e2e kind-up kind-demo kind-down picture lock clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

packages: ## Install the few Debian packages that are missing (gdisk, e2fsprogs, cryptsetup-bin, erofs-utils and the like)
	@tools/packages

$(VENV)/.done: requirements.lock pyproject.toml | packages
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

setup: $(VENV)/.done ## Make the virtual environment

demo: setup ## Six machines update themselves, then survive a broken release; ARGS=--json for one JSON document
	@$(BIN)/careen sandbox demo $(ARGS)

demo-vm: setup ## Two virtual machines update by kexec, then survive a release that panics; ARGS=--json as for demo
	@tools/packages vm
	@PYTHONPATH=tools $(BIN)/python -m testos demo $(ARGS)

test: setup ## Lint, types, contracts, and all tests on a real control plane
	@$(STEP) lint $(MAKE) --no-print-directory lint
	@$(STEP) unit $(MAKE) --no-print-directory unit
	@$(STEP) model $(MAKE) --no-print-directory model
	@$(STEP) api $(MAKE) --no-print-directory api

test-install: setup ## Chart, documents, image, end-to-end and alerts: what a user installs, reads and watches
	@$(STEP) chart $(MAKE) --no-print-directory test-chart
	@$(STEP) docs $(MAKE) --no-print-directory docs
	@$(STEP) e2e $(MAKE) --no-print-directory e2e
	@$(STEP) image $(MAKE) --no-print-directory test-image
	@$(STEP) observe $(MAKE) --no-print-directory observe

lint: setup ## Style, types and import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >.lint-imports.log || { cat .lint-imports.log; exit 1; }

unit: setup ## Tests that need no server
	@$(BIN)/pytest -q -n 2 --dist loadfile tests/unit tests/property $(ARGS)

model: setup ## The seeded model test: whole rollouts in memory, invariants after every event
	@$(BIN)/pytest -q tests/sim $(ARGS)

api: setup ## Tests on a real API server (built at the first run, cached for ever after)
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "not fleet" tests/api $(ARGS)

test-units: setup ## Units on 30 to 200 machines: one dies, all are updated, the API server is away
	@$(STEP) units $(BIN)/pytest -q -m fleet tests/api $(ARGS)

test-chart: setup ## The Helm chart on a real API server (helm is built at the first run)
	@$(BIN)/pytest -q -n 2 --dist loadfile tests/chart $(ARGS)

docs: setup ## The documents: commands of README and quick start run as written, links and names checked
	@$(BIN)/pytest -q tests/docs $(ARGS)

test-vm: setup ## Eight scenarios on virtual machines under software emulation (needs root to build their images once)
	@tools/packages vm
	@$(STEP) vm $(BIN)/pytest -q -n 2 --dist worksteal -m short tests/vm $(ARGS)

test-vm-all: setup ## The whole matrix of faults on virtual machines; writes docs/fault-matrix.md
	@tools/packages vm
	@CAREEN_FAULT_MATRIX=docs/fault-matrix.md $(STEP) vm-all $(BIN)/pytest -q -n 2 --dist worksteal tests/vm $(ARGS)

test-cluster: setup ## Five scenarios on two virtual machines with a real kubelet, into which the chart is installed
	@tools/packages vm
	@$(STEP) cluster $(BIN)/pytest -q tests/cluster $(ARGS)

sim: setup ## The model test over SEEDS seeds (default 100000)
	@$(BIN)/python -m careen.sim --seeds $(SEEDS)

bench: setup ## Figures of docs/benchmarks.md, measured on this machine
	@tools/packages bench
	@$(BIN)/python -m bench $(ARGS)

crds: setup ## Write crds/, docs/fields.md, docs/metrics.md and what the chart has of them, from models, metrics and values.yaml
	@$(BIN)/python -m careen.api.crd crds/
	@$(BIN)/python -m careen.api.fields docs/fields.md
	@$(BIN)/python -m careen.observe.document docs/metrics.md charts/careen/files/alerts.yaml
	@$(BIN)/python tools/chartfiles.py

$(DOCS_VENV)/.done: requirements-docs.lock
	@$(PYTHON) -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

site: $(DOCS_VENV)/.done ## The documents as a site in site/; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet

artifact: setup ## Put the agent into one file, dist/careen-agent.pyz, for machines with python3.11
	@$(BIN)/python tools/artifact

image: setup ## Build the container image without a container engine, dist/careen.oci.tar (on Debian 12), and run it (as root)
	@PYTHONPATH=tools $(BIN)/python -m ociimage build
	@if [ "$$(id -u)" = 0 ]; then PYTHONPATH=tools $(BIN)/python -m ociimage check; \
	 else echo "not run: that needs root; the archive is built"; fi

image-lock: setup ## Renew tools/ociimage/packages from what the Debian mirror has now
	@PYTHONPATH=tools $(BIN)/python -m ociimage lock

test-image: setup ## The container image: the same bytes each time, small, unprivileged (root for what runs in it)
	@$(BIN)/pytest -q tests/image $(ARGS)

e2e: setup ## The end-to-end tests, on the sandbox, or on the cluster of $$CAREEN_E2E_KUBECONFIG
	@$(BIN)/pytest -q tests/e2e $(ARGS)

kind-up: setup ## A kind cluster with three machines that Careen was installed for (needs docker, kind, kubectl, helm)
	@PYTHONPATH=tools $(BIN)/python -m kind up $(ARGS)

kind-demo: setup ## The same, and an update to watch
	@PYTHONPATH=tools $(BIN)/python -m kind demo $(ARGS)

kind-down: setup ## Take the kind cluster away
	@PYTHONPATH=tools $(BIN)/python -m kind down

observe: setup ## Alert rules, dashboard and metrics, with a Prometheus that scrapes operator and agents
	@tools/packages observe
	@$(BIN)/pytest -q tests/observe $(ARGS)

dashboard-picture: setup ## Renew docs/dashboard.svg from a Prometheus that watches the demo
	@tools/packages observe
	@PYTHONPATH=tools $(BIN)/python -m dashboard docs/dashboard.svg

picture: setup ## Renew docs/demo.svg from a run of the demo
	@$(BIN)/careen sandbox demo --svg docs/demo.svg

lock: setup ## Renew requirements.lock and requirements-docs.lock from pyproject.toml
	@tools/lock

clean: ## Remove the virtual environment and caches of this folder
	@rm -rf $(VENV) $(DOCS_VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .lint-imports.log
