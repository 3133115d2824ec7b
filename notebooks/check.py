"""Exercises that check themselves: check.NAME(answer) is "right", or "not yet" and a hint.

A check never raises, whatever it is given. tests/test_notebooks.py holds each against the blank,
against mistakes that people make, and against solutions.py.
"""

from notebooks.check_rewards import *  # noqa: F403
from notebooks.check_training import *  # noqa: F403
