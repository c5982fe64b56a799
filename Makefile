# Every target makes what it needs: a fresh clone and `python3` are enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MODEL  ?=

.PHONY: chat web docs test check lint system clean

# The stamp is newer than what it was made from, so that a changed requirement is installed and nothing else is.
$(VENV)/.installed: pyproject.toml constraints.txt CMakeLists.txt $(wildcard src/chatglm/kernels/cpu/*)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

chat: $(VENV)/.installed
	@$(BIN)/chatglm chat $(if $(MODEL),--model '$(MODEL)')

web: $(VENV)/.installed
	@$(BIN)/chatglm web --open $(if $(MODEL),--model '$(MODEL)')

# The documentation as pages, in build/site.
docs: $(VENV)/.installed
	@$(BIN)/python -m mkdocs build --quiet && echo "build/site/index.html"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Programs and fonts, not Python's, that tests need: at once where they are there.
system:
	@sh tests/packages.sh

test: system lint
	$(BIN)/python -m pytest -n 3 --dist worksteal

check: test

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .mypy_cache .ruff_cache
