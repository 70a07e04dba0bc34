# The habits of this project. Each target first makes or refreshes the environment it needs (scripts/env).
# PYTHON picks the interpreter, VENV the folder, ARGS is passed on: make test ARGS="-k gate -x". JOBS says how
# many tests run at once (by default one per core; 0: one after the other, in this process).

VENV ?= .venv
BIN := $(VENV)/bin
ENV := VENV='$(VENV)' PYTHON='$(PYTHON)' sh scripts/env
ARGS ?=
JOBS ?= auto

.PHONY: demo test check bench serve format clean

demo: ## a real web app, three users, two plans: metered, warned and refused
	@$(ENV) demo
	@$(BIN)/paygent demo $(ARGS)

serve: ## the demo's app, kept up for a browser
	@$(ENV) demo
	@$(BIN)/paygent demo --serve $(ARGS)

test: ## all tests
	@$(ENV) test
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: ## ruff, mypy --strict and the import contract
	@$(ENV) check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

bench: ## the figures of docs/benchmarks.md
	@$(ENV) test
	@$(BIN)/python -m benchmarks $(ARGS)

format: ## let ruff mend what it can
	@$(ENV) check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .nox
