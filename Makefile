# make demo   the whole story on a CPU: environment, warm-up, reward model, three arms, figure
# make test   all tests
# make reproduce   the figure and table of the README from three seeds (see results/)
# make reproduce-spurious   those of Spurious Rewards, five seeds: 70 minutes on two cores, resumable
# Flags reach every stage: make demo ARGS="--seed 1 --output runs/demo1"

PYTHON ?= python3
RUN := .venv/bin/python
SEEDS ?= 0 1 2
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
	$(RUN) -m pytest -q

lint: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# One seed after another, each resumable, with the paper's negatives as a fourth arm; then figure,
# table and slim logs of all.
reproduce: .venv/ready
	for seed in $(SEEDS); do \
	  folder=runs/reproduce/seed$$seed; \
	  $(RUN) -m experiments.three_arms --seed $$seed --output $$folder $(ARGS) && \
	  $(RUN) cooper.py --seed $$seed --model $$folder/policy --rm_model $$folder/rm --steps 400 \
	    --negatives assistant --output $$folder/assistant || exit 1; \
	done
	$(RUN) -m experiments.three_arms_report --folder runs/reproduce --output results/cooper.png --keep results/cooper \
	  --caption "seeds $(SEEDS), prior mixed, 32 x 8 rollouts a step, lr 2e-4: make reproduce"

# Two runs at a time, one thread each; logs, figures and tables go to results/, tables to the README.
reproduce-spurious: .venv/ready
	$(RUN) -m experiments.spurious --keep results/spurious --readme README.md $(ARGS)
