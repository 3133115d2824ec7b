"""Walkthroughs, and what they share: show.py, check.py; solutions.py has the exercises' answers."""
