# A bare machine needs Python >= 3.11 and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run demo test acceptance pictures docs lint types format clean

run: $(VENV)/.installed
	$(BIN)/quantum-exporter run $(ARGS)

# Prices follow real candles where a folder of them is named (or lies beside the checkout).
HISTORY := $(or $(QUANTUM_EXPORTER_HISTORY),$(wildcard ../shared/data/btc))

demo: $(VENV)/.installed
	QUANTUM_EXPORTER_HISTORY=$(HISTORY) exec $(BIN)/quantum-exporter run --simulate $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# Starts the demo as a user would and asks it real questions over HTTP; some minutes long.
acceptance: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m acceptance -p no:xdist $(ARGS)

# The documentation as a site in ./site; a broken link or a page that the menu lacks is an error.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Draws what README and docs show, from a demo in which some things go wrong; ten minutes long.
pictures: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[pictures]'
	$(BIN)/python -m tests.acceptance.pictures $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("quantum-exporter needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache
