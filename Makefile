# Everything is set up in .venv by the first target that needs it: `make demo` and `make test` work from a bare clone.

SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv

# An existing environment keeps its interpreter; otherwise the first of these that is new enough. Override: make install PYTHON=...
ifeq ($(origin PYTHON),undefined)
PYTHON := $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(shell for candidate in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$candidate; break; }; done))
endif

# One pinned set for Python 3.11 (jax 0.10) and one for 3.12 and later (jax 0.11).
MINOR := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PINS := $(if $(filter 3.11,$(MINOR)),py311,py312)
CUDA := $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda)
EXTRAS := test,notebooks,plot,progress,replay,envs,checkpoint,bench$(CUDA:%=,%)
PIP := -m pip --disable-pip-version-check install --quiet
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed-$(MINOR)$(CUDA)
PEERS := .venv-peers/.installed-$(MINOR)$(CUDA)
SBX := .venv-sbx/.installed-$(MINOR)
PYTEST_ARGS ?=
WORKERS ?= 2
UV ?= uv

# Programs compiled by one run are kept for the next, in the user's cache folder or wherever JAX_COMPILATION_CACHE_DIR says.
# Not for `bench-peers`, whose figures include the time to compile.
CACHED := demo test test-slow test-newest coverage mutants notebooks papers
$(CACHED): export JAX_COMPILATION_CACHE_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pgjax/jax
$(CACHED): export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.05

# What the newest interpreter is tried on in CI, beside the default one on everything: a minute or two.
SHORT := tests/test_returns.py tests/test_sharding.py

.PHONY: help install demo test test-slow test-newest coverage mutants lint types docs notebooks certificates papers learn learn-rejax learn-offpolicy learn-agents variance bench-peers bench-sbx lock clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with pgjax in it (PYTHON=... chooses the interpreter, 3.11 or newer)

demo: install ## train four estimators on CartPole: a table, figures and JSON in out/demo
	$(RUN) benchmarks/learning_curves.py --out out/demo

test: lint types ## lint, types and the default tests (PYTEST_ARGS=... is passed on, WORKERS=... at a time)
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

test-slow: install ## the tests that take minutes
	$(RUN) -m pytest -m slow $(PYTEST_ARGS)

test-newest: install ## a short selection of the tests under the newest interpreter there is, in an environment of its own
	@newest=$$($(RUN) .ci/newest_python.py); minor=$${newest%% *}; \
	if [ "$$minor" = "$(MINOR)" ]; then echo "no supported Python newer than $(MINOR) here"; \
	else $(MAKE) --no-print-directory install VENV=.venv-newest EXTRAS=test PYTHON="$${newest#* }" && \
		.venv-newest/bin/python -m pytest -n $(WORKERS) -q $(SHORT) $(PYTEST_ARGS); fi

coverage: install ## the default tests with line coverage: the lines that no test reaches are listed
	$(RUN) -m pytest -n $(WORKERS) --dist loadfile -q --cov --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

mutants: install ## plant faults, see the tests go red (ROOM=..., ONE_IN=8 or SINCE=commit for some; DOCS=1 writes the page of the docs anew)
	$(RUN) tests/mutants/run.py $(ROOM) $(if $(ONE_IN),--one-in $(ONE_IN)) $(if $(SINCE),--changed-since $(SINCE)) $(if $(DOCS),--docs) --workers $(WORKERS)

lint: install ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: install ## mypy
	$(RUN) -m mypy

docs: $(VENV)/.docs-$(MINOR) ## the documentation, in docs/_build/html; a warning is an error, also the second time
	$(RUN) -m sphinx -E -W --keep-going -q -b html docs docs/_build/html

notebooks: install ## run every notebook in its fast form, without saving
	PGJAX_FAST=1 $(VENV)/bin/python notebooks/run.py

certificates: install ## measure bias and variance of each estimator (DOCS=1 writes the page of the docs anew)
	$(RUN) benchmarks/certificates.py --out out/certificates $(if $(DOCS),--docs docs)

papers: install ## measure published findings again (ONLY="one another" for some, FRESH=1 anew; DOCS=1 writes the page of the docs anew)
	$(RUN) benchmarks/reproduce.py --out out/papers $(if $(ONLY),--only $(ONLY)) $(if $(FRESH),--fresh) $(if $(DOCS),--docs docs)

learn: install ## train the recipes on the small environments (ONLY=, ENV=, SEEDS=8, FAST=1; DOCS=1 writes the page of the docs anew)
	$(RUN) benchmarks/learn.py --out out/learn $(if $(ONLY),--only $(ONLY)) $(if $(ENV),--env $(ENV)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FAST),--fast) $(if $(DOCS),--docs docs)

learn-rejax: install $(PEERS) ## PPO of rejax on Breakout-MinAtar, for the page of `make learn` (SEEDS=8)
	.venv-peers/bin/python benchmarks/learn_rejax.py --out out/learn $(if $(SEEDS),--seeds $(SEEDS))

learn-offpolicy: install ## the same for the recipes with action values
	$(RUN) benchmarks/learn.py --off-policy --out out/learn $(if $(ONLY),--only $(ONLY)) $(if $(ENV),--env $(ENV)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FAST),--fast) $(if $(DOCS),--docs docs)

learn-agents: install ## MADDPG beside independent DDPG, and against it (SEEDS=8, FAST=1; DOCS=1 writes the page of the docs anew)
	$(RUN) benchmarks/agents.py --out out/agents $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FAST),--fast) $(if $(DOCS),--docs docs)

variance: install ## compare the noise of estimators on CartPole and Pendulum (DOCS=1 writes a page of the docs)
	$(RUN) benchmarks/variance_reduction.py --out out/variance $(if $(DOCS),--docs docs)

bench-peers: install $(PEERS) ## PPO side by side with rejax, which lives in .venv-peers
	PEERS_PYTHON=.venv-peers/bin/python $(RUN) benchmarks/peers.py --out out/peers

bench-sbx: install $(SBX) ## SAC and TD3 side by side with SBX, which lives in .venv-sbx and brings PyTorch along
	SBX_PYTHON=.venv-sbx/bin/python $(RUN) benchmarks/peers_off_policy.py --out out/peers_off_policy

lock: ## resolve constraints/ again (needs uv): pins that still fit stay, UPGRADE=1 takes the newest of everything
	@for version in 3.11 3.12; do \
		compile="$(UV) pip compile - --python-version $$version --no-python-downloads --no-header --no-annotate --quiet $(if $(UPGRADE),--upgrade)"; \
		pins=constraints/py$${version/./}.txt; peers=constraints/peers-py$${version/./}.txt; sbx=constraints/peers-sbx-py$${version/./}.txt; \
		banner="resolved for CPython $$version; written by \`make lock\`, never by hand."; \
		printf 'hatchling\neditables\n' | $$compile pyproject.toml --all-extras -o $$pins > /dev/null || exit 1; \
		printf 'rejax\ngymnax<1\nsix\njax[cuda12]\n' | $$compile -c <(grep -E '^jax(lib)?==' $$pins) -o $$peers > /dev/null || exit 1; \
		printf 'sbx-rl\n' | $$compile -c <(grep -E '^jax(lib)?==' $$pins) -o $$sbx > /dev/null || exit 1; \
		sed -i "1i # The full set that CI installs, $$banner" $$pins; \
		sed -i "1i # rejax and the old gymnax that it needs, $$banner" $$peers; \
		sed -i "1i # SBX, $$banner" $$sbx; \
	done

clean: ## remove outputs and caches, keep the environments
	rm -rf out build dist docs/_build .coverage .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find pgjax tests benchmarks docs notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	rm -rf .venv .venv-*

# $(call environment,DIR): make it, unless it is there with the wanted Python already.
define environment
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo 'pgjax needs Python 3.11 or newer; "$(PYTHON)" is not. Say make install PYTHON=/path/to/python3.11'; exit 1; }
@$(1)/bin/python -c 'import sys, pip; sys.exit("%d.%d" % sys.version_info[:2] != "$(MINOR)")' 2>/dev/null || "$(PYTHON)" -m venv --clear $(1)
endef

# The pins hold for the build requirements too: older pip reads the first variable for those, newer pip the second.
$(INSTALLED): pyproject.toml constraints/$(PINS).txt
	$(call environment,$(VENV))
	PIP_CONSTRAINT=constraints/$(PINS).txt PIP_BUILD_CONSTRAINT=constraints/$(PINS).txt $(RUN) $(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.docs-$(MINOR): $(INSTALLED)
	PIP_CONSTRAINT=constraints/$(PINS).txt PIP_BUILD_CONSTRAINT=constraints/$(PINS).txt $(RUN) $(PIP) --editable '.[docs]'
	@touch $@

$(PEERS): constraints/peers-$(PINS).txt
	$(call environment,.venv-peers)
	.venv-peers/bin/python $(PIP) --constraint $< rejax 'gymnax<1' six 'jax$(CUDA:%=[%12])'
	@touch $@

$(SBX): constraints/peers-sbx-$(PINS).txt
	$(call environment,.venv-sbx)
	.venv-sbx/bin/python $(PIP) --constraint $< sbx-rl
	@touch $@
