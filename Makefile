# make search   set up, rank architectures on the built-in data, show where the ranking is
# make test     set up with every extra and run the tests
# make check    set up and run lint, floors and types

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
EVERYTHING := $(VENV)/.everything
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

SPACE ?= darts
DATA ?= glyphs

.PHONY: search test check clean

search: $(READY)
	$(BIN)/metantk-nas search --space $(SPACE) --data $(DATA)

test: $(EVERYTHING)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(EVERYTHING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "metantk-nas needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(EVERYTHING): $(READY)
	$(INSTALL) -e '.[test,check,all]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
