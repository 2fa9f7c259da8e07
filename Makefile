# Two commands do everything: `make demo` and `make test`. Both set up .venv first, from constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

FILE ?= examples/handbook.pdf
Q    ?= Why do the bell-ringers of Oddersley travel free?

.PHONY: demo ask test lint format examples clean help
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("lcdoc needs Python 3.11 or later; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# torch first, at its pinned version: another package's open range would choose a larger build.
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/typing && ln -sfn ../.. $(VENV)/typing/lcdoc
	@touch $@

demo: $(READY) ## Set up, then ask the sample document a question
	$(BIN)/lcdoc ask $(FILE) "$(Q)"

ask: $(READY) ## Ask your own file: make ask FILE=book.pdf Q="Why did she leave?"
	@$(BIN)/lcdoc ask "$(FILE)" "$(Q)"

test: $(READY) ## Set up, then run the tests
	$(BIN)/python -m pytest

lint: $(READY) ## Style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(VENV)/typing $(BIN)/mypy -p lcdoc

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

examples: $(READY) ## Make the sample documents anew
	$(BIN)/python examples/make_sample.py

clean: ## Remove what the targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build
