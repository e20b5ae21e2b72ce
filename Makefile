# Everything is set up in .venv by the first target that needs it: `make demo` and `make test` work from a bare clone.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# An existing .venv keeps its interpreter; otherwise the first of these that is new enough. Override: make install PYTHON=...
ifeq ($(origin PYTHON),undefined)
PYTHON := $(if $(wildcard .venv/bin/python),.venv/bin/python,$(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$candidate; break; }; done))
endif

# One pinned set for Python 3.11 (jax 0.10) and one for 3.12 and later (jax 0.11).
MINOR := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PINS := $(if $(filter 3.11,$(MINOR)),py311,py312)
CUDA := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda)
EXTRAS := test,notebooks,plot,progress,checkpoint,bench$(CUDA:%=,%)
PIP := -m pip --disable-pip-version-check install --quiet
VENV := .venv/bin/python
INSTALLED := .venv/.installed-$(MINOR)$(CUDA)
PEERS := .venv-peers/.installed-$(MINOR)$(CUDA)
PYTEST_ARGS ?=
WORKERS ?= 2
UV ?= uv

.PHONY: help install demo test test-slow lint types docs notebooks certificates bench-peers lock clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with pgjax in it (PYTHON=... chooses the interpreter, 3.11 or newer)

demo: install ## train four estimators on CartPole: a table, figures and JSON in out/demo
	$(VENV) benchmarks/learning_curves.py --out out/demo

test: lint types ## lint, types and the default tests (PYTEST_ARGS=... is passed on, WORKERS=... at a time)
	$(VENV) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-slow: install ## the tests that take minutes
	$(VENV) -m pytest -m slow $(PYTEST_ARGS)

lint: install ## ruff: rules and format
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .

types: install ## mypy
	$(VENV) -m mypy

docs: .venv/.docs-$(MINOR) ## the documentation, in docs/_build/html; a warning is an error
	$(VENV) -m sphinx -W --keep-going -q -b html docs docs/_build/html

notebooks: install ## run every notebook in its fast form, without saving
	PGJAX_FAST=1 .venv/bin/jupyter-execute --timeout=600 notebooks/*.ipynb

certificates: install ## measure bias and variance of each estimator (DOCS=1 writes the page of the docs anew)
	$(VENV) benchmarks/certificates.py --out out/certificates $(if $(DOCS),--docs docs)

bench-peers: install $(PEERS) ## PPO side by side with rejax, which lives in .venv-peers
	PEERS_PYTHON=.venv-peers/bin/python $(VENV) benchmarks/peers.py --out out/peers

lock: ## resolve constraints/ again (needs uv)
	@for version in 3.11 3.12; do \
		compile="$(UV) pip compile - --python-version $$version --no-python-downloads --no-header --no-annotate --quiet"; \
		pins=py$${version/./}; banner="resolved for CPython $$version; written by \`make lock\`, never by hand."; \
		all=$$(printf 'hatchling\neditables\n' | $$compile pyproject.toml --all-extras) || exit 1; \
		printf '# The full set that CI installs, %s\n%s\n' "$$banner" "$$all" > constraints/$$pins.txt; \
		peers=$$(printf 'rejax\ngymnax<1\nsix\njax[cuda12]\n' | $$compile -c <(grep -E '^jax(lib)?==' constraints/$$pins.txt)) || exit 1; \
		printf '# rejax and the old gymnax that it needs, %s\n%s\n' "$$banner" "$$peers" > constraints/peers-$$pins.txt; \
	done

clean: ## remove outputs and caches, keep the environments
	rm -rf out build dist docs/_build .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find pgjax tests benchmarks docs notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	rm -rf .venv .venv-peers

# $(call environment,DIR): make it, unless it is there with the wanted Python already.
define environment
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo 'pgjax needs Python 3.11 or newer; "$(PYTHON)" is not. Say make install PYTHON=/path/to/python3.11'; exit 1; }
@$(1)/bin/python -c 'import sys, pip; sys.exit("%d.%d" % sys.version_info[:2] != "$(MINOR)")' 2>/dev/null || "$(PYTHON)" -m venv --clear $(1)
endef

# The pins hold for the build requirements too: older pip reads the first variable for those, newer pip the second.
$(INSTALLED): pyproject.toml constraints/$(PINS).txt
	$(call environment,.venv)
	PIP_CONSTRAINT=constraints/$(PINS).txt PIP_BUILD_CONSTRAINT=constraints/$(PINS).txt $(VENV) $(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

.venv/.docs-$(MINOR): $(INSTALLED)
	PIP_CONSTRAINT=constraints/$(PINS).txt PIP_BUILD_CONSTRAINT=constraints/$(PINS).txt $(VENV) $(PIP) --editable '.[docs]'
	@touch $@

$(PEERS): constraints/peers-$(PINS).txt
	$(call environment,.venv-peers)
	.venv-peers/bin/python $(PIP) --constraint $< rejax 'gymnax<1' six 'jax$(CUDA:%=[%12])'
	@touch $@
