# All set-up there is: `make demo` and `make test` work in a fresh clone on a machine that has only
# Python 3.11 or newer, git and make. PYTHON=python3.12 chooses the interpreter. The stamps keep a
# second run cheap: pip runs again only when pyproject.toml has changed.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# An environment of another interpreter than the one asked for, or one that a system upgrade has
# broken, is made anew. Here and not in a rule, because make looks at a file's age only once.
ifneq ($(origin PYTHON),undefined)
$(shell [ "$$(cat $(VENV)/interpreter 2>/dev/null)" = "$(PYTHON)" ] || rm -f $(VENV)/interpreter)
endif
$(shell $(BIN)/python -c '' 2>/dev/null || rm -f $(VENV)/interpreter)
PYTHON ?= python3

# One word on what the interpreter is fit for: old, bare, good, or none when it does not run.
fitness = $(shell { "$(PYTHON)" -c 'import sys; sys.version_info < (3, 11) and (sys.stdout.write("old"), sys.exit(1))' && \
  { "$(PYTHON)" -c 'import ensurepip, venv' && echo good || echo bare; }; } 2>/dev/null)
refuse_old = $(error $(PYTHON) is older than 3.11: install Python 3.11 or newer, or name one, as in make PYTHON=python3.12)
refuse_bare = $(error $(PYTHON) has no venv module: install it, on Debian and Ubuntu with apt install python3-venv)
refuse_ = $(error $(PYTHON) does not run: install Python 3.11 or newer, or name one, as in make PYTHON=python3.12)

# Otherwise pyright asks the package index at every run whether it is the newest.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# What test-versions looks for; those that are not installed are left out.
PYTHONS := python3.11 python3.12 python3.13

.PHONY: demo test test-versions tests bench clean

demo: $(VENV)/installed
	$(BIN)/python -m asyncjobs demo

run_tests = $(BIN)/pytest -n 2 --dist worksteal -m "not proof and not timed"

# Tests have their files in memory where there is room; what holds a time has them on the disk.
test: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(run_tests)
	PYTEST_DEBUG_TEMPROOT="$${TMPDIR:-/tmp}" $(BIN)/pytest -m "timed and not proof"

# Each Python in an environment of its own. Types and times are the affair of `make test`.
test-versions:
	@for python in $(PYTHONS); do \
	  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || \
	    { echo "$$python is not there: left out"; continue; }; \
	  echo "$$python:"; \
	  $(MAKE) --no-print-directory tests PYTHON="$$python" VENV=".venv-$$version" || exit 1; \
	done

tests: $(VENV)/installed-dev
	$(run_tests)

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .venv-3.* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/interpreter:
	$(refuse_$(fitness))"$(PYTHON)" -m venv --clear $(VENV)
	@echo "$(PYTHON)" > $@

$(VENV)/installed: pyproject.toml $(VENV)/interpreter
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/interpreter
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/installed $@
