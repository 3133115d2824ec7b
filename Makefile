# make demo   the whole story on a CPU: environment, warm-up, reward model, three arms, figure
# make test   all tests, in two processes of one thread each
# make notebooks   installs what they need, runs all from top to bottom, writes their outputs
# make test-trl   cooper_trl.py on two processes, with TRL installed
# make reproduce   Cooper's Table 3 and Figures 3 and 4 in miniature, ten seeds: resumable
# make reproduce-more   its assistant, ablations, longer runs, a rule that misses forms, verifiers that err: resumable
# make reproduce-spurious   those of results/spurious, five seeds: resumable
# make survey   the survey's open questions in miniature, five seeds: resumable
# make real   SmolLM2-135M on SVAMP: cold start, rule, reward model, static and Cooper: resumable
# Flags reach every stage: make demo ARGS="--seed 1 --output runs/demo1"

PYTHON ?= python3
RUN := .venv/bin/python
ARGS ?=

.venv/ready: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minicooper needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install -q -r requirements.txt
	touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt requirements-notebooks.txt
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@

.venv/ready-notebooks: .venv/ready requirements-notebooks.txt
	$(RUN) -m pip install -q -r requirements-notebooks.txt
	touch $@

.venv/ready-trl: .venv/ready-dev requirements-trl.txt
	$(RUN) -m pip install -q -r requirements-trl.txt
	touch $@

.PHONY: demo test notebooks test-trl lint reproduce reproduce-more reproduce-spurious survey real

demo: .venv/ready
	$(RUN) -m experiments.three_arms $(ARGS)

test: .venv/ready-dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadscope

notebooks: .venv/ready-notebooks
	$(RUN) -m notebooks.run $(ARGS)

test-trl: .venv/ready-trl
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests/test_trl.py

lint: .venv/ready-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# Two runs at a time, one thread each; logs, tables and figures go to runs/reproduce/results.
reproduce: .venv/ready
	$(RUN) -m experiments.reproduce --only table $(ARGS)

reproduce-more: reproduce
	$(RUN) -m experiments.reproduce --only assistant ablations long forms verifier $(ARGS)

# Two runs at a time, one thread each; logs, figures and tables go to results/spurious, the tables
# also to its README.
reproduce-spurious: .venv/ready
	$(RUN) -m experiments.spurious --keep results/spurious \
	  --readme results/spurious/README.md $(ARGS)

survey: .venv/ready
	$(RUN) -m experiments.survey $(ARGS)

real: .venv/ready
	$(RUN) -m pip install -q datasets
	$(RUN) -m experiments.real $(ARGS)
