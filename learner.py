"""What a run trains and on what: loaded, checked, and saved with a checkpoint."""

import copy
from dataclasses import dataclass, field

import torch

import labels
from data import training_and_held_out
from rollout import can_share_prompts, load_policy, those_that_fit
from support import memory
from support.checks import ABOVE_0, check_settings
from support.errors import InputError
from support.progress import say
from support.run import rng
from support.selfcheck import set_bf16
from survey import conflicts, sampling


@dataclass
class Learner:
    policy: torch.nn.Module
    tokenizer: object
    optimizer: torch.optim.Optimizer
    reference: torch.nn.Module | None  # the frozen start, only where kl_coef asks for it
    problems: list
    held_out: list  # problems of the evaluation, never trained on
    extra: dict  # parts that a switch of sampling.py needs, by name; saved and resumed
    extra_completions: int = 0  # of this step, beside the N*G
    to_log: dict = field(default_factory=dict)  # what a switch of this step has to log

    @property
    def writer(self) -> torch.nn.Module:
        """Whose completions are learnt from."""
        return self.extra["stale"].writer if "stale" in self.extra else self.policy

    @property
    def chances(self) -> list[float] | None:
        """How likely each problem is drawn; None: all alike."""
        return self.extra["success"].chances() if "success" in self.extra else None


def check(cfg, **ranges) -> None:
    """Raise InputError for settings that make no sense, see support/checks.py."""
    check_settings(cfg, temperature=(ABOVE_0, None), **ranges)
    if cfg.minibatches > (rows := cfg.prompts * cfg.group_size):
        raise InputError(f"minibatches must be between 1 and the {rows} completions of a step")
    conflicts.check(cfg)


def start(cfg) -> Learner:
    """Load the policy and the problems of a grpo.GRPOConfig. Raises InputError."""
    sources = cfg.data, cfg.eval_data, cfg.eval_problems
    problems, held_out = training_and_held_out(*sources, seed=cfg.seed)
    if (cfg.train_problems or 0) > len(problems):
        raise InputError(f"train_problems={cfg.train_problems}, but there are {len(problems)}")
    if cfg.train_problems is not None:
        problems = rng(cfg.seed, "training set").sample(problems, cfg.train_problems)
    set_bf16(cfg.bf16)
    how = {"system": cfg.system, "chat": cfg.chat, "cuda_graphs": cfg.cuda_graphs}
    policy, tokenizer = load_policy(cfg.model, **how)
    say(policy.checked)
    problems, held_out = those_that_fit(policy, tokenizer, cfg.max_new_tokens, problems, held_out)
    if cfg.share_prompts and not can_share_prompts(policy):
        raise InputError(f"share_prompts: not with {type(policy).__name__}, leave it out")
    if cfg.gradient_checkpointing:
        memory.set_checkpointing(policy)
    if cfg.lora_rank:
        memory.add_lora(policy, cfg.lora_rank, cfg.seed, cfg.bf16)
    reference = None
    if cfg.kl_coef:  # with LoRA the policy itself, which has the start inside
        reference = policy if cfg.lora_rank else copy.deepcopy(policy)
    problems = labels.problems_for(cfg, policy, tokenizer, problems)
    return Learner(
        policy=policy,
        tokenizer=tokenizer,
        optimizer=torch.optim.AdamW(
            memory.trainable(policy), lr=cfg.lr, weight_decay=cfg.weight_decay
        ),
        reference=reference,
        problems=problems,
        held_out=held_out,
        extra=sampling.parts(cfg, policy, reference, problems),
    )


def frozen(learner: Learner, cfg):
    """The policy as it is now, before training: the KL's reference, if it stays that, or a copy."""
    if learner.reference is None or cfg.lora_rank or cfg.reference_reset:
        return copy.deepcopy(learner.policy)
    return learner.reference
