# Needs only make and Python 3.11 to 3.13. Each target that needs packages installs them once, then works offline.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SITE   := $(VENV)/.installed-site
LOCK   := requirements-cpu.lock

# The same keys stand in .pre-commit-config.yaml; tests/test_environment.py compares them.
STRIP  := metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution

# Nothing in the nano profile or the tests needs the model hub: a look-up would be a bug, so it fails at once.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help env lab run rehearse seeds stage2 test test-slow test-browser test-faults bench site lint lock nano-model clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP)  ## create .venv with the locked packages
	@echo "to use it, in each shell: source $(VENV)/bin/activate"

# The stamp is removed first and written last, so a failed or interrupted install is done again.
# torch comes first and alone: it is the largest by far, and what goes wrong with it is then seen before the rest.
$(STAMP): pyproject.toml $(LOCK)
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "sgvl needs Python 3.11 to 3.13; this is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "installing into $(VENV): a few minutes, once"
	@start=$$(date +%s); set -e; \
	  $(PYTHON) -m venv $(VENV); \
	  $(BIN)/pip install -qq --disable-pip-version-check -c $(LOCK) torch; \
	  $(BIN)/pip install -qq --disable-pip-version-check -c $(LOCK) -e ".[dev]"; \
	  echo "installed in $$(( $$(date +%s) - start )) s"
	@touch $@

# The hub is open here: a notebook may load models and data from it.
lab: $(STAMP)  ## open the notebooks in JupyterLab, the first of them at once
	env -u HF_HUB_OFFLINE $(BIN)/python -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB)

run: $(STAMP)  ## run the whole notebook series, nano profile
	$(BIN)/python -m sgvl.run nano --jobs 2

# Each profile is rehearsed whole, also where a unit of the other broke.
rehearse: $(STAMP)  ## run both GPU profiles on the CPU with small stand-ins, and check what they made
	$(BIN)/python -m sgvl.run single --rehearse --jobs 2; single=$$?; \
	  $(BIN)/python -m sgvl.run paper --rehearse --jobs 2 && exit $$single
	$(BIN)/python -m pytest -n 0 -m rehearse

seeds: $(STAMP)  ## after `make run`: train both stages with five seeds (more than an hour), and put them into the report
	$(BIN)/python -m sgvl.run nano_seeds
	$(BIN)/python -m sgvl.run nano --only 07_figures --force

stage2: $(STAMP)  ## after `make run`: train stage 2 with one thing changed at a time, and put the table into the report
	$(BIN)/python -m sgvl.run nano_ablations
	$(BIN)/python -m sgvl.run nano --only 07_figures --force

# Two processes of one thread each: with more, two at once wait for each other's threads.
test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## run the tests that train a model
	$(BIN)/python -m pytest -m slow

# Drives a Chromium of the system, so no browser is downloaded.
test-browser: $(STAMP)  ## run the classroom in JupyterLab, Voila and as a file, and measure the report, in Chromium
	$(BIN)/pip install -qq --disable-pip-version-check -c $(LOCK) -e ".[browser]"
	$(BIN)/python -m pytest -m browser

bench: $(STAMP)  ## race the judging engine against three other ways to ask; prints docs/PERFORMANCE.md
	$(BIN)/python benchmarks/judging.py

test-faults: $(STAMP)  ## run the tests of faults, the long ones too, write docs/RELIABILITY.md, and fuzz for an hour
	$(BIN)/python -m pytest -m fault --write-faults
	$(BIN)/python -m pytest tests/test_properties.py --hypothesis-profile hour

$(SITE): $(STAMP)
	$(BIN)/pip install -qq --disable-pip-version-check -c $(LOCK) -e ".[site]"
	@touch $@

site: $(SITE)  ## after `make run`: make a web site of the executed notebooks, the report and docs/
	$(BIN)/python docs/site/build_site.py

lint: $(STAMP)  ## check style, formatting and that notebooks hold no outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/nbstripout --verify --extra-keys "$(STRIP)" notebooks/*.ipynb

# Depends on nothing: to move a version, change its range, install it into .venv by hand, then freeze what was tested.
lock:  ## write requirements-cpu.lock from .venv
	$(BIN)/pip freeze --exclude sgvl > $(LOCK).new
	@{ echo '# As tested on CPU with Python 3.11. Made by `make lock` (pip freeze of .venv).'; \
	   echo '# Used as constraints: pip install -c $(LOCK) -e ".[dev]"'; \
	   sed 's/+cpu$$//' $(LOCK).new; } > $(LOCK)
	@rm $(LOCK).new

nano-model: $(STAMP)  ## rebuild the nano base model from nothing (about an hour on two cores)
	$(BIN)/python -m sgvl.nano.build

clean:  ## remove .venv, caches and builds; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
