# make demo: the whole pipeline on synthetic scenes. make test: every check of this checkout.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test environment clean

demo: environment
	$(BIN)/strata demo

test: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest

environment: $(STAMP)

# Made anew when pyproject.toml changes. Every recipe step leaves a state from which it can be repeated.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "strata needs Python 3.11 or later; say which: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the environment into .venv (several GB, minutes the first time)"
	@$(BIN)/python -m pip install --quiet --editable '.[3d,dev]'
	@touch $@

clean:
	rm -rf build dist .pytest_cache .ruff_cache demo
