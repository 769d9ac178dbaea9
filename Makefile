# The commands of a newcomer: make quickstart, make test, make lint, make clean; of a contributor also make mutants and make gpu.

# The python that builds .venv; afterwards .venv's own python runs everything.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
# Options of pytest. One of the two processes runs the tests of several ranks, the other one all others.
PYTEST_ARGS ?= -n 2 --dist loadgroup
# The python of make gpu, whose torch has CUDA, and its options.
GPU_PYTHON ?= python3
GPU_ARGS ?=

.PHONY: quickstart test lint mutants gpu clean

quickstart: $(INSTALLED)
	$(VENV)/bin/python launch/quickstart.py

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Three minutes on two cores: plants faults in the core files and counts those that the tests notice.
mutants: $(INSTALLED)
	$(VENV)/bin/python tests/mutants.py

# At most 25 minutes on one GPU: checks and measures everything that needs one. The environment needs torch with CUDA.
gpu:
	$(GPU_PYTHON) -m launch.gpu_acceptance $(GPU_ARGS)

clean:
	rm -rf data/quickstart runs/quickstart build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# A stamp: .venv is brought up to date when the requirements are newer than the last installation.
$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; \
	sys.exit(f"python {v} is too old, 3.11 is needed: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$$(grep '^torch==' requirements.txt)"
	$(VENV)/bin/python -m pip install -r requirements-dev.txt
	touch $@
