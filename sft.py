r"""Supervised fine-tuning on written solutions: what RL is compared with, and the usual cold start.

Its gradient is that of REINFORCE with an advantage of 1 on texts that somebody wrote,

    grad J = 1/Z sum_{n,t}  grad log pi(y_t | x, y_<t)

so the update is grpo.update. Whose texts (`solutions`):

    samples    the policy's own completions that the rule proves right, of as many as GRPO samples
               in `pool_steps` steps (arXiv:2308.01825, which drops duplicates; here they stay)
    given      code without a mistake, for the chains of the embedded world
    x.jsonl    one {"question": ..., "solution": ...} a line; with "prompt", a text on the question
               that answers this message: a judge's verdict, say

    python sft.py --model runs/demo/policy --solutions samples
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

import learner as learning
import rewards
import rules
from data import Problem, draw_problems, final_answer
from eval import eval_metrics, evaluation_due
from grpo import GRPOConfig, update
from prompts import solve_prompt
from rollout import Rollouts, left_pad, sample
from support import memory
from support.chat import chat_ids
from support.errors import InputError
from support.flags import command_line
from support.jsonl import fields, read_rows
from support.models import pad_id
from support.progress import progress, say
from support.run import Run, rng, summary, torch_rng
from survey import objectives
from survey.process import operations
from world import write_solution


@dataclass(frozen=True)
class SFTConfig(GRPOConfig):
    output: str = "runs/sft"  # folder of this run; one that was interrupted there goes on
    solutions: str = "samples"  # samples, given, or a .jsonl file
    pool_steps: int = 60  # how many steps of completions "samples" looks at
    weight: Literal["none"] = "none"  # nothing is sampled here that a ratio could correct


# fields of GRPOConfig that would do nothing here
OF_REWARDS = ("reward", "gamma", "votes", "scale_by_std")
OF_REWARDS += ("clip_eps", "clip_eps_low", "clip_eps_high")


def written(policy, tokenizer, problems: list[Problem], texts, prompts=None) -> Rollouts:
    """Texts as Rollouts of groups of one; each ends with EOS. prompts: messages, None to solve."""
    to, pad = policy.device, pad_id(policy, tokenizer)
    messages = zip(problems, prompts or [None] * len(texts))
    prompts = [chat_ids(tokenizer, message or solve_prompt(p.question)) for p, message in messages]
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    ids = [row + [tokenizer.eos_token_id] for row in ids]
    width = max(map(len, ids))
    prompt_ids, prompt_mask = left_pad(prompts, pad, to)
    completion = torch.tensor([row + [pad] * (width - len(row)) for row in ids], device=to)
    lengths = torch.tensor([len(row) for row in ids], device=to)
    mask = (torch.arange(width, device=to) < lengths[:, None]).float()
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=completion,
        mask=mask,
        logp=torch.zeros_like(mask),
        truncated=torch.zeros(len(texts), dtype=torch.bool, device=to),
        texts=list(texts),
        problems=list(problems),
        group_size=1,
    )


Text = tuple[Problem, str, str | None]  # what it is about, the text, what it answers; None: solve


def right_samples(learner, cfg: SFTConfig) -> list[Text]:
    """What the rule proves right of the completions that GRPO would sample in pool_steps steps."""
    says, found = rules.rule_of(cfg.rule), []
    generator = torch_rng(learner.policy.device, cfg.seed, "right samples")
    for step in progress(range(1, cfg.pool_steps + 1), "samples", leave=False):
        problems = draw_problems(learner.problems, cfg.prompts, rng(cfg.seed, "problems", step))
        rollouts = sample(
            learner.policy, learner.tokenizer, problems, cfg.group_size, cfg.max_new_tokens,
            cfg.temperature, generator=generator,
        )  # fmt: skip
        pairs = zip(rollouts.problems, rollouts.texts)
        found += [(problem, text, None) for problem, text in pairs if says(text, problem)]
    if not found:
        raise InputError("none of the policy's samples is right: give it --solutions")
    say(f"{len(found)} of {cfg.pool_steps * cfg.prompts * cfg.group_size} samples are right")
    return found


def solutions_of(learner, cfg: SFTConfig) -> list[Text]:
    """What to train on. Raises InputError."""
    if cfg.solutions == "samples":
        return right_samples(learner, cfg)
    if cfg.solutions == "given":
        if not all(operations(problem.question) for problem in learner.problems):
            raise InputError("--solutions given is for chains of sums: name a .jsonl file")
        draw = rng(cfg.seed, "given")
        return [(p, write_solution(p.question, "python", draw), None) for p in learner.problems]
    if not Path(cfg.solutions).is_file():
        raise InputError(f"--solutions {cfg.solutions}: samples, given, or a .jsonl file")
    found = []
    for where, row in read_rows(cfg.solutions):
        question, solution, prompt = fields(row, ("question", "solution"), "prompt", where)
        found.append((Problem(question, final_answer(solution)), solution, prompt))
    tested = {problem.question for problem in learner.held_out}
    kept = [row for row in found if row[0].question not in tested]
    if len(kept) < len(found):
        say(f"{len(found) - len(kept)} solutions are left out: their questions are held out")
    if not kept:
        raise InputError(f"{cfg.solutions} has no question that is not held out")
    return kept


def train(cfg: SFTConfig, on_row=None) -> list[dict]:
    """As many updates of as many texts as GRPO with the same settings."""
    learning.check(cfg)
    asked = objectives.changed(cfg, but=("weight",))
    asked += [name for name in OF_REWARDS if getattr(cfg, name) != getattr(GRPOConfig, name)]
    if asked:
        raise InputError(f"supervised training has no rewards: leave out {', '.join(asked)}")
    with Run(cfg, on_row=on_row) as run:
        learner = learning.start(cfg)
        policy, tokenizer, optimizer = learner.policy, learner.tokenizer, learner.optimizer
        pool = solutions_of(learner, cfg)
        run.resume(policy=memory.trained(policy), optimizer=optimizer)
        if not run.history:
            run.log({"step": 0} | eval_metrics(learner, cfg))

        for step in run.steps():
            began, seeded = time.time(), torch_rng(policy.device, cfg.seed, "step", step)
            optimizer.param_groups[0]["lr"] = cfg.lr * min(1.0, step / max(cfg.lr_warmup, 1))
            draw = rng(cfg.seed, "texts", step)
            texts = zip(*draw_problems(pool, cfg.prompts * cfg.group_size, draw))
            rollouts = written(policy, tokenizer, *texts)
            adv = torch.ones(len(rollouts.texts), device=policy.device)
            # the likelihood is that at temperature 1, whatever the samples were drawn at
            now = replace(cfg, temperature=1.0)
            stats = update(policy, optimizer, rollouts, adv, now, learner.reference, seeded)
            del stats["sampling/sampling_logp_difference/max"]  # nothing was sampled
            row = {"step": step, "accuracy": rewards.rule(rollouts).mean().item()} | stats
            row["completions"] = 0
            row["step_time"] = time.time() - began
            if evaluation_due(cfg, step):
                row |= eval_metrics(learner, cfg)
            run.log(row)
            run.checkpoint(step)

        run.save_model("policy", memory.merged(policy), tokenizer)
    return run.history


def main(cfg: SFTConfig) -> None:
    print(summary(train(cfg), cfg.output))


if __name__ == "__main__":
    command_line(SFTConfig, main)
