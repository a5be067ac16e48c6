# Every target makes what it needs: a virtual environment in .venv, from nothing but Python 3.11+ and an index of packages.
# It holds exactly what the files in locks/ say, by version and hash.
#
#   make test PYTHON=python3.13     with this Python, in .venv-3.13, instead of the first one that will do, in .venv
#   make demo ARGS="durable --chaos"    as durable functions, in processes that are killed meanwhile
#   make test ARGS="-k local -x"    with further arguments for the command behind the target
#   HOTMESH_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin make test    on this Postgres instead of the newest

PYTHON ?=
ARGS ?=
WORKERS ?= 3

# An environment for each Python that was named.
# Tables of the demo's own, as this checkout makes them: those of another one are left alone.
DEMO = hotmesh-demo-$(shell cat src/hotmesh/postgres/sql/migrations/*.sql | cksum | cut -d ' ' -f 1)

VENV := .venv$(if $(PYTHON),-$(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
BIN := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak newest lock clean python

help: ## what can be made
	@sed -n 's/^#   make/  make/p' $(firstword $(MAKEFILE_LIST)); echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed ## run 2,000 orders through a flow, on a Postgres that comes along
	@$(BIN)/hotmesh demo $(filter durable,$(ARGS)) --namespace $(DEMO) $(filter-out durable,$(ARGS))

test: $(VENV)/.installed-dev ## run the tests
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not soak" $(ARGS)

check: $(VENV)/.installed-dev ## check format, style, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code, and repair what can be repaired by itself
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(VENV)/.installed-dev ## measure, side by side with another engine
	@$(BIN)/python bench/run.py $(ARGS)

soak: $(VENV)/.installed-dev ## kill, stop and restart everything, and run hostile callbacks, at random for minutes, and look for what got lost
	@$(BIN)/python -m tests.soak $(ARGS)

newest: ## run the tests on the newest versions that pyproject.toml allows, in an environment of its own
	@rm -rf .venv-newest
	@$(MAKE) --no-print-directory PYTHON='$(PYTHON)' VENV=.venv-newest .venv-newest/.newest
	@.venv-newest/bin/python -m pytest -n $(WORKERS) -m "not soak" $(ARGS)

lock: ## write locks/ anew, with the newest versions that pyproject.toml allows
	@$(MAKE) --no-print-directory PYTHON='$(PYTHON)' VENV=.venv-lock .venv-lock/bin/uv
	$(LOCK) pyproject.toml --extra local --group build --output-file locks/run.txt
	$(LOCK) pyproject.toml --extra local --group build --group dev --constraint locks/run.txt --output-file locks/dev.txt
	$(LOCK) --group contender --output-file locks/contender.txt

# For all supported Pythons and platforms at once; without the name of an index.
LOCK = .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command 'make lock'

clean: ## remove everything that was made here
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps are older than the locks when another version may be wanted. Building needs no package beyond the locked ones.
$(VENV)/.installed: locks/run.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes --requirement locks/run.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: locks/dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes --requirement locks/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.installed

# --group is younger than many a pip.
$(VENV)/.newest: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[local]' --group dev
	@touch $@

$(VENV)/bin/uv: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade uv

$(BIN)/python:
	@python=$$($(MAKE) --silent --no-print-directory python) && \
	echo "creating $(VENV) with $$python" && \
	rm -rf $(VENV) && "$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

python: ## say which Python the environment is, or would be, made with
	@unfit=; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	        unfit="$$unfit  $$python is Python $$version, and 3.11 or newer is needed\n"; continue; fi; \
	    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	        unfit="$$unfit  $$python lacks the module ensurepip: on Debian and Ubuntu, apt install python$$version-venv\n"; continue; fi; \
	    "$$python" -c 'import sys; print(sys.executable)'; exit 0; \
	done; \
	printf "no Python to create the environment with.\n$${unfit:-  looked for: $(or $(PYTHON),python3, and python3.11 to python3.14, on PATH)\n}Name one with: make PYTHON=/path/to/python3\n" >&2; exit 1
