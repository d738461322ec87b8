# make demo: the papers' phenomenon in one to two minutes (SEED=100: from other seeds).   make test: the tests.   make lint: style and types.
# make test-extras: longer tests, and a campaign of kills, faults and damaged files on the store, in about a quarter of an hour.
# make docs: the site of the documentation, in build/site; its gallery is computed anew, in about five minutes.
# make package: wheel and source archive, each installed in an environment of its own and run, the demo too; PACKAGE="--oldest --quick" and others: tests/distribution/check.py.
# make coverage: the tests with lines and branches counted; make mutants: which changes of the core no test notices (an hour).
# make golden BASE=COMMIT: keys, bits, rows and printed texts against a former commit, on this machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-extras lint docs golden package coverage mutants install clean
install: $(READY)

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[dev]"
	touch $(READY)

SEED ?= 0
demo: $(READY)
	$(BIN)/lotto run stabilizing.sparsity resnet20-mnist1d --rewind-to 0it,100it --densities 0.35,0.12,0.06 --control-steps none --seed $(SEED) --out lotto-results/demo

# One process per core: nearly every test uses one thread.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-extras: $(READY)
	$(BIN)/python -m pytest -m extras
	PYTHONPATH=tests $(BIN)/python tests/campaign/campaign.py --kills 40 --faults 150 --damages 50

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[docs]"
	$(BIN)/python -m sphinx -q -b html -W --keep-going -c docs/site . build/site

BASE ?= HEAD
golden: $(READY)
	$(BIN)/python tests/golden/compare.py $(BASE)

coverage: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pytest-cov
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term $(TESTS)

mutants: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mutmut
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1 $(MUTANTS)
	$(BIN)/mutmut results

PACKAGE ?=
package:
	$(PYTHON) tests/distribution/check.py --torch torch==2.13.0 $(PACKAGE)

clean:
	rm -rf $(VENV) lotto-results
