"""What several test files need: tokenizer, untrained policy, hand-made rollouts, an exact toy."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import tiny  # noqa: E402
from data import Problem  # noqa: E402
from prompts import solve_prompt  # noqa: E402
from rollout import Rollouts, chat_ids, left_pad  # noqa: E402


@pytest.fixture(scope="session")
def tokenizer():
    return tiny.build_tokenizer()


@pytest.fixture
def policy(tokenizer):
    """An untrained policy; every test gets a fresh one with the same weights."""
    torch.manual_seed(0)
    return tiny.build_policy(tokenizer).eval()


@pytest.fixture(scope="session")
def untrained(tmp_path_factory, tokenizer):
    """A folder with an untrained policy, for the functions that load from disk."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    tiny.build_policy(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def make_rollouts(tokenizer):
    """make_rollouts(texts, problems, group_size): as if a policy had written `texts`."""

    def make(texts, problems, group_size):
        prompts = [chat_ids(tokenizer, solve_prompt(p.question)) for p in problems]
        prompt_ids, prompt_mask = left_pad(prompts, tokenizer.pad_token_id, "cpu")
        tokens = [tokenizer(t + "<|end|>").input_ids for t in texts]
        width = max(map(len, tokens))
        completion = torch.full((len(texts), width), tokenizer.pad_token_id)
        mask = torch.zeros(len(texts), width)
        for i, row in enumerate(tokens):
            completion[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        return Rollouts(
            prompt_ids.repeat_interleave(group_size, 0),
            prompt_mask.repeat_interleave(group_size, 0),
            completion,
            mask,
            torch.zeros_like(mask),
            torch.zeros(len(texts), dtype=torch.bool),
            list(texts),
            [p for p in problems for _ in range(group_size)],
            group_size,
        )

    return make


class Bigram(torch.nn.Module):
    """A policy in float64 to compute by hand: the next token depends on the last one only."""

    def __init__(self, table):
        super().__init__()
        table = torch.as_tensor(table, dtype=torch.float64).clone()  # [V, V] logits
        self.embed = torch.nn.Embedding.from_pretrained(table, freeze=False)
        self.head = torch.nn.Linear(*table.shape, bias=False, dtype=torch.float64)
        self.head.weight = torch.nn.Parameter(torch.eye(len(table), dtype=torch.float64))

    def get_decoder(self):
        return lambda input_ids, **ignored: SimpleNamespace(last_hidden_state=self.embed(input_ids))

    def get_output_embeddings(self):
        return self.head


@pytest.fixture
def bigram():
    return Bigram


@pytest.fixture
def token_rollouts():
    """token_rollouts(prompt [B, P], completion [B, T], mask, logp, group_size) without any text."""

    def make(prompt, completion, mask=None, logp=None, group_size=1):
        mask = torch.ones(completion.shape) if mask is None else mask
        logp = torch.zeros(completion.shape) if logp is None else logp
        rows = len(completion)
        return Rollouts(
            prompt, torch.ones_like(prompt), completion, mask.double(), logp.double(),
            torch.zeros(rows, dtype=torch.bool), [""] * rows, [Problem("?", "1")] * rows,
            group_size,
        )  # fmt: skip

    return make


def same(a, b) -> bool:
    """Whether two checkpoints, or parts of them, hold the same numbers."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.fixture
def resumes_alike(monkeypatch):
    """resumes_alike(loop, cfg): killed in its third update and called again, loop.train(cfg) ends
    as the run that it returns, which was not: the same rows, the same checkpoint."""

    def check(loop, cfg) -> list[dict]:
        whole, update, done = loop.train(cfg), loop.update, []
        again = dataclasses.replace(cfg, output=f"{cfg.output}-again")

        def killed(*args):
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(1)
            return update(*args)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "update", killed)
            with pytest.raises(KeyboardInterrupt):
                loop.train(again)
        resumed = loop.train(again)
        for row in whole + resumed:
            row.pop("step_time", None)
        assert resumed == whole and len(done) == 2
        one, two = (torch.load(Path(c.output, "checkpoint.pt")) for c in (cfg, again))
        for part in one.keys() - {"config", "inputs"}:
            assert same(one[part], two[part]), part
        return whole

    return check
