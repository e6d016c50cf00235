# The words that people and CI use. Each does its own set-up; nothing here needs more than
# Python 3.11, make and git. See CONTRIBUTING.md.

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 2
SEED ?= 0

.PHONY: demo up test check lint format types imports tests cover bench campaign wheel lock clean run dev parts
.NOTPARALLEL:

demo: run            ## the whole story on this machine, from nothing
	$(BIN)/colonist demo

up: run              ## a whole colony in one process, until Ctrl-C; UP="--port 0" gives it flags
	$(BIN)/colonist up $(UP)

test: lint types imports cover    ## every gate: exactly what CI runs

check: lint types imports tests   ## the same without coverage and slow tests: before each commit

lint: dev            ## format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: dev          ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: dev           ## basedpyright is the gate, mypy the quick second look
	$(BIN)/basedpyright
	$(BIN)/mypy

imports: dev         ## who may import whom
	$(BIN)/lint-imports --no-logo

tests: dev parts     ## the quick tests
	$(PYTEST) -m "not e2e and not slow and not campaign"

cover: dev parts     ## every test, and how much of the code they reach
	scripts/cover

bench: run           ## what is measured and how: benchmarks/
	$(BIN)/python -m benchmarks

campaign: dev parts  ## long randomised tests; SEED=n repeats one
	SEED=$(SEED) $(PYTEST) --timeout=3600 --hypothesis-profile=campaign --hypothesis-seed=$(SEED) -m campaign

wheel: dev           ## build it, install it alone, then with everything, and run it
	$(BIN)/python scripts/check_wheel

lock:                ## after a change of dependencies in pyproject.toml
	scripts/lock

clean:               ## what tools leave behind; .venv and .cache/parts stay
	rm -rf dist build htmlcov .coverage .coverage.* .pytest_cache .ruff_cache .mypy_cache .hypothesis
	rm -rf .import_linter_cache .cache/wheel .cache/apt
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

run dev:
	@scripts/setup $@

# A part that cannot be had skips its tests, which then say so; it does not stop the others.
parts:
	@scripts/fetch_part mosquitto etcd || true
