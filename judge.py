"""An LLM as the judge of a completion: it says Yes or No beside the reference."""

import re

import torch

from prompts import judge_prompt
from rollout import Rollouts, load_policy, sample
from support.chat import within_context


def judge(policy, tokenizer, rollouts: Rollouts, max_new_tokens: int = 8) -> list[int | None]:
    """Ask an LLM for Yes (1) or No (0) on each rollout, greedily; None where it says neither."""
    rows = zip(rollouts.problems, rollouts.texts)
    prompts = [judge_prompt(p.question, p.answer, text) for p, text in rows]
    # of what is too long to be read the judge says nothing
    fits = within_context(policy, tokenizer, prompts, max_new_tokens)
    rows = [i for i, fit in enumerate(fits) if fit]
    if not rows:
        return [None] * len(prompts)
    said = sample(
        policy, tokenizer, [rollouts.problems[i] for i in rows], 1, max_new_tokens,
        temperature=0.0, prompts=[prompts[i] for i in rows],
    )  # fmt: skip
    verdicts = dict(zip(rows, map(verdict, said.texts)))
    return [verdicts.get(i) for i in range(len(prompts))]


def verdict(text: str) -> int | None:
    """The last Yes (1) or No (0) of a judge's reply, whatever it thought before.

    >>> verdict("<think>Yes? No.</think> Yes."), verdict("<think>Yes, the answer"), verdict("Maybe")
    (1, None, None)
    """
    said = re.sub(r"<think>.*?(</think>|$)", " ", text, flags=re.DOTALL).rpartition("</think>")[2]
    words = re.findall(r"\b(yes|no)\b", said.lower())
    return int(words[-1] == "yes") if words else None


class Judge:
    """The reward "judge", a generative one: 1 where a frozen LLM says Yes.

    It is the policy that the run starts from, loaded when it is first asked.
    """

    def __init__(
        self, model: str, system=None, chat=None, max_new_tokens: int = 32, cuda_graphs=True
    ):
        self.settings, self.loaded = (model, "auto", system, chat, cuda_graphs), ()
        self.max_new_tokens = max_new_tokens

    def __call__(self, rollouts: Rollouts) -> torch.Tensor:
        self.loaded = self.loaded or load_policy(*self.settings)
        said = judge(*self.loaded, rollouts, self.max_new_tokens)
        return torch.tensor([float(verdict == 1) for verdict in said])
