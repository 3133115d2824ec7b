"""What training takes for right: the verifier, a poorer rule, or one that errs."""

import hashlib
import re

import torch

from rollout import Rollouts
from support.errors import InputError
from verifier import extract_answer, verify


def proved(text: str, problem) -> bool:
    """The verifier: what evaluation goes by, and the rule of training unless it is to err."""
    return verify(text, problem.answer, require_box=True)


def same_text(text: str, problem) -> bool:
    return extract_answer(text, require_box=True) == problem.answer


def last_number(text: str, problem) -> bool:
    found, wanted = (
        re.findall(r"\d+", side or "")
        for side in (extract_answer(text, require_box=True), problem.answer)
    )
    return bool(found and wanted) and found[-1] == wanted[-1]


RULES = {"verifier": proved, "same text": same_text, "last number": last_number}


def rule_of(spec: str):
    """The rule that training goes by, `rule(text, problem) -> bool`, of a field `rule`.

    "verifier"       the whole verifier: `proved`
    "same text"      the answer in the box is the reference, character by character
    "last number"    the last number in the box is the last of the reference
    "verifier, misses 0.3, accepts 0.1"    it rejects 0.3 of what is right, accepts 0.1 of what is
                     wrong: by chance, but always alike for the same text
    "verifier, misses 0.3 by answer"       it always errs where the box holds certain answers

    Evaluation goes by the verifier whatever this says. Raises InputError.
    """
    number = r"(0\.\d+|0|1)"
    names, errors = "|".join(RULES), rf"(?:, misses {number})?(?:, accepts {number})?( by answer)?"
    match = re.fullmatch(f"({names}){errors}", spec)
    if not match:
        raise InputError(
            f"no rule {spec!r}: name one of {', '.join(RULES)}, perhaps with ', misses 0.3', "
            "', accepts 0.1' and ' by answer' behind it, in this order"
        )
    base = RULES[match[1]]
    misses, accepts = float(match[2] or 0), float(match[3] or 0)
    if misses == accepts == 0:
        return base

    def erring(text, problem) -> bool:
        answer = extract_answer(text, require_box=True)
        if answer is None:
            return False
        seen = answer if match[4] else f"{problem.question} {text}"
        right = base(text, problem)
        # sha256 and not a checksum: texts that differ in a digit must not be alike
        digest = hashlib.sha256(f"{right} {seen}".encode()).digest()
        errs = int.from_bytes(digest[:4], "big") / 2**32 < (misses if right else accepts)
        return right != errs

    return erring


def by_rule(says):
    """The reward of a rule that says yes or no to one (text, problem)."""

    def rule(rollouts: Rollouts) -> torch.Tensor:
        return torch.tensor([float(says(t, p)) for t, p in zip(rollouts.texts, rollouts.problems)])

    return rule
