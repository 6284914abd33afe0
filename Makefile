# Everything starts from a machine with Python 3.11+, make, git and, on Linux, bubblewrap.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/installed
	rm -rf runs/demo
	$(BIN)/firstfault train --config recipes/demo.toml $(FLAGS)

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# minutes to an hour; writes docs/benchmarks.md
bench: .venv/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check trl ipykernel jupyter_client
	for name in iteration shares rollouts training memory growth sandbox viewer; do $(BIN)/python benchmarks/$$name.py || exit 1; done

# torch first, at the version that everything here was tested with
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --disable-pip-version-check --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs dist
