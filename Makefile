# Everything starts from nothing: each target installs what it needs into .venv once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: install demo test test-oldest test-lenskit lint audit docs

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[worker,embedded,report,demo,dev]'
	touch $@

demo: install  ## KEEP=1 leaves everything running
	$(BIN)/dynrec demo $(if $(KEEP),--keep)

test: install  ## ARGS='-k name --pg 16' goes to pytest; of three processes on two cores one mostly waits; threads are not to wait busily
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 3 --dist loadgroup $(ARGS)

test-oldest: install  ## what speaks SQL, against the oldest PostgreSQL that is supported
	$(BIN)/pytest --numprocesses 2 --pg 16 tests/sql tests/migration $(ARGS)

test-lenskit:  ## the metrics against lenskit, which cannot be installed beside the rest
	$(PYTHON) -m venv .venv-lenskit
	.venv-lenskit/bin/pip install --quiet torch==2.13.0 lenskit scikit-learn pytest pytest-timeout --editable '.[embedded]'
	.venv-lenskit/bin/pytest tests/sql/test_lenskit.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.lint_migrations

audit: install  ## known vulnerabilities of the versions in constraints.txt; says so where no advisory service is reachable
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit==2.10.1
	$(BIN)/python -m tests.audit_dependencies .venv-audit/bin/pip-audit

docs: install
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/performance.py
