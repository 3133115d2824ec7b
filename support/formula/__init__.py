"""The formula reader: whether two answers in TeX, plain text or Unicode are the same.

Read the files in this order: rewrite.py (notation that does not matter), tokens.py (text to
tokens), tree.py (what a tree is), parse.py (tokens to a tree), value.py (a tree to a number, with
mpmath), agree.py (two formulas tried at a few places), same.py (two answers: lists, intervals,
equations, units), prose.py (the answer in a text without a box). The grammar is small and our own,
so no text reaches eval, sympify or parse_expr; no number is made before its size is known; each
file imports only earlier ones.
"""

from support.formula.prose import last_answer
from support.formula.rewrite import without_stop
from support.formula.same import same_answer

__all__ = ["last_answer", "same_answer", "without_stop"]
