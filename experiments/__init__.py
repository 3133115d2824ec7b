"""Runs whose results are committed, their tables and figures: python -m experiments.NAME."""
