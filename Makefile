# make demo   the whole story on a CPU: environment, warm-up, reward model, three arms, figure
# make test   all tests, in two processes of one thread each
# make reproduce   figure, table and logs of results/cooper: SEEDS, two at a time, resumable
# make reproduce-spurious   those of results/spurious, five seeds: resumable
# Flags reach every stage: make demo ARGS="--seed 1 --output runs/demo1"

PYTHON ?= python3
RUN := .venv/bin/python
SEEDS ?= 4 5 6 7
ARGS ?=

.venv/ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minicooper needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install -q -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@

.PHONY: demo test lint reproduce reproduce-spurious

demo: .venv/ready
	$(RUN) -m experiments.three_arms $(ARGS)

test: .venv/ready-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadscope

lint: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# Two seeds at a time, one thread each; then figure, slim logs, and what the README says of them.
reproduce: .venv/ready
	printf '%s\n' $(SEEDS) | OMP_NUM_THREADS=1 xargs -P 2 -I SEED \
	  $(RUN) -m experiments.three_arms --seed SEED --arms rule frozen cooper assistant --output runs/reproduce/seedSEED $(ARGS)
	$(RUN) -m experiments.three_arms_report --folder runs/reproduce --output results/cooper.png \
	  --keep results/cooper --readmes README.md results/cooper/README.md \
	  --caption "prior mixed, 32 x 8 completions per step, lr 1e-4, rm_lr 3e-4: make reproduce"

# Two runs at a time, one thread each; logs, figures and tables go to results/spurious, the tables
# also to its README.
reproduce-spurious: .venv/ready
	$(RUN) -m experiments.spurious --keep results/spurious \
	  --readme results/spurious/README.md $(ARGS)
