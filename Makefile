# Every command of the project, one way each. `make` alone lists them.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install run test lint bench openapi lock clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## create .venv with noidai in it

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "noidai needs Python 3.12 or newer on the PATH (make PYTHON=/path/to/python3)"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: install ## start the service (embedded PostgreSQL; demo data when empty) on port 8000
	$(BIN)/noidai serve --demo

test: install ## run all tests, in parallel, with the coverage floor
	$(BIN)/pytest -n auto --cov --cov-report=term $(ARGS)

lint: install ## style, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## print ratios against a bare floor measured in the same run
	$(BIN)/python -m tests.bench

openapi: install ## write openapi/openapi.v1.json anew
	$(BIN)/noidai openapi > openapi/openapi.v1.json

lock: ## lock the dependencies anew, with hashes
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.12 --extra dev --generate-hashes \
		--no-emit-index-url --no-header pyproject.toml -o requirements.lock
	rm -rf .venv-lock

clean: ## forget the environment (the data under .noidai stays)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
