r"""Cooper on TRL's GRPOTrainer: the same loop on as many processes and GPUs as there are.

Stages 1 to 4 are TRL's, with what it brings: DDP; vLLM and LoRA through the arguments of `train`.
Tried are processes on CPUs. The whole policy is loaded and checked on each device first, so that it
must fit there, and so must the assistant; ZeRO-3, FSDP and vLLM are untried. The reward
model is a reward function that scores first and then learns (5 to 7). Advantages come from the
scores, so this order and that of cooper.py are the same thing.

Every process has the whole reward model, whatever holds the policy. Pairs are gathered from all,
each process computes its share of every minibatch, and gradients are summed: what one process
would do, so that the copies stay equal. NOTE: an optimizer from `accelerator.prepare` would leave
out steps under gradient accumulation, and DDP would wait for ever for a process without pairs.

    torchrun --nproc_per_node 2 cooper_trl.py --model runs/demo/policy --rm_model runs/demo/rm

Optional: pip install trl==1.16.0. docs/differences.md says where TRL does otherwise than grpo.py.
"""

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import learner as learning
import rules
from cooper import CooperConfig, agreement
from data import Problem
from grpo import clip_bounds
from pairs import find_negatives, pair_up, select_positives
from prompts import solve_prompt
from reward_model import RewardModel, pairwise_loss
from rollout import load_policy
from support.chat import decode, defuse
from support.errors import InputError
from support.files import (
    check_apart,
    is_new,
    plain,
    read_json,
    refuse_other_settings,
    save_model,
    write,
)
from support.flags import command_line
from support.optimize import norm_stats, optimizer_step
from support.run import rng
from survey import objectives

HELP = objectives.HELP


@dataclass(frozen=True)
class TRLConfig(CooperConfig):
    output: str = "runs/cooper_trl"  # checkpoints and metrics.jsonl; what was interrupted goes on


# What cooper.py alone does, by field, and what it has to be here.
FIXED = {
    "reward": "rm", "kl_estimator": "k3", "stale_pairs": False, "rm_every": 1, "lora_rank": None,
    "entropy_coef": 0.0, "votes": 64, "gamma": 0.5, "bf16": None, "share_prompts": False,
}  # fmt: skip


@dataclass
class Group:
    """What stages 5 and 6 read of a batch of completions: see rollout.Rollouts."""

    texts: list[str]
    problems: list[Problem]
    group_size: int


class LearningReward:
    """A reward function of TRL: the score of a reward model, which then learns from the rule."""

    def __init__(self, cfg: CooperConfig):
        torch.manual_seed(cfg.seed)  # of a new head: the same on every process
        self.cfg, self.says, self.verify = cfg, rules.rule_of(cfg.rule), rules.rule_of("verifier")
        self.rm = RewardModel.load(cfg.rm_model, neutralise=cfg.neutralise)
        self.optimizer = torch.optim.AdamW(self.rm.model.parameters(), cfg.rm_lr, weight_decay=0.01)
        self.policy = None  # the trainer's, whose mode tells training from evaluation
        self.tokenizer = self.assistant = None
        if cfg.negatives == "assistant" and cfg.rm_lr > 0:
            own = (cfg.system, cfg.chat) if cfg.assistant is None else (None, None)
            self.assistant = load_policy(
                cfg.assistant or cfg.model, "auto", *own, cuda_graphs=cfg.cuda_graphs
            )

    def __call__(self, completion_ids, question, answer, trainer_state, log_metric, **columns):
        texts = decode(self.tokenizer, completion_ids)  # thinking and all, as rollout.sample does
        problems = [Problem(q, a) for q, a in zip(question, answer)]
        score = self.rm.score(question, answer, texts).cpu()  # before the update
        correct = [self.says(text, problem) for text, problem in zip(texts, problems)]
        right = [float(self.verify(text, problem)) for text, problem in zip(texts, problems)]
        stats = {"accuracy": sum(right) / len(right)}
        stats["rm/agreement"] = agreement(score, torch.tensor(right))
        if self.cfg.rm_lr > 0 and self.policy.training:  # TRL evaluates with the same functions
            group = Group(texts, problems, self.cfg.group_size)
            pairs = gather_object(self.pairs(group, correct, trainer_state.global_step))
            stats |= self.update(pairs)
            stats["rm/valid_rate"] = len(pairs) / (self.cfg.prompts * self.cfg.rm_updates)
        for name, value in stats.items():
            log_metric(name, value)
        return score.tolist()

    def pairs(self, group: Group, correct: list[bool], step: int) -> list[tuple]:
        """5 positives and 6 negatives of the groups on this process."""
        cfg, draw = self.cfg, rng(self.cfg.seed, "pairs", step, PartialState().process_index)
        positives = select_positives(group, correct, draw, cfg.rm_updates)
        found = find_negatives(
            group, correct, positives, draw, self.assistant, cfg, step, self.says
        )
        return pair_up(group, positives, found)

    @torch.enable_grad()
    def update(self, pairs: list[tuple]) -> dict[str, float]:
        """7 reward-model update: cooper.update_reward_model on everyone's pairs."""
        if not pairs:  # on no process
            return {}
        model, sums, norms = self.rm.model, torch.zeros(3), []
        rank, ranks = PartialState().process_index, PartialState().num_processes
        size = math.ceil(len(pairs) / self.cfg.rm_updates)
        model.train()
        for minibatch in (pairs[i : i + size] for i in range(0, len(pairs), size)):
            share, part = minibatch[rank::ranks], self.cfg.rm_micro_batch or size
            for micro in (share[i : i + part] for i in range(0, len(share), part)):
                questions, references, positive, negative = map(list, zip(*micro))
                z = self.rm.logits(questions * 2, references * 2, positive + negative)
                z_pos, z_neg = z.chunk(2)
                loss = pairwise_loss(z_pos, z_neg) * len(micro)
                (loss / len(minibatch)).backward()
                margin = (z_pos - z_neg).detach().cpu()
                sums += torch.tensor([loss.item(), margin.sum().item(), (margin > 0).sum().item()])
            for p in model.parameters():  # a process whose share is empty takes part
                p.grad = reduce(torch.zeros_like(p) if p.grad is None else p.grad, "sum")
            norms.append(optimizer_step(model, self.optimizer, self.cfg.max_grad_norm))
        model.eval()
        loss, margin, right = (reduce(sums.to(model.device), "sum") / len(pairs)).tolist()
        stats = {"rm/loss": loss, "rm/margin": margin, "rm/pair_accuracy": right}
        return stats | {f"rm/{name}": value for name, value in norm_stats(norms).items()}


class Keep(TrainerCallback):
    """The reward model goes into TRL's checkpoints, the log into metrics.jsonl."""

    def __init__(self, cfg: CooperConfig, updates: int, on_row, **parts):
        self.path, self.updates, self.parts = Path(cfg.output, "metrics.jsonl"), updates, parts
        self.on_row = on_row

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            path = Path(args.output_dir, f"checkpoint-{state.global_step}", "rm.pt")
            whole = path.with_suffix(".tmp")
            torch.save({name: part.state_dict() for name, part in self.parts.items()}, whole)
            os.replace(whole, path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "reward" in logs:
            row = {"step": state.global_step // self.updates} | logs
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            if self.on_row is not None:
                self.on_row(row)

    def forget(self, step: int) -> None:
        """What was logged after the checkpoint of `step`."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write(self.path, "".join(kept))


def settings(cfg: CooperConfig, **more) -> tuple[GRPOConfig, int]:
    """TRL's config, and how many updates a step has: TRL counts updates, cooper.py steps.

    Raises InputError for what TRL does not do, or does not split evenly.
    """
    asked = [name for name, value in FIXED.items() if getattr(cfg, name) != value]
    asked += objectives.changed(cfg)
    if cfg.clip_eps is None:
        asked.append("clip_eps")
    if asked:
        raise InputError(f"cooper.py alone does that: leave out {', '.join(dict.fromkeys(asked))}")
    low, high = clip_bounds(cfg)
    gpu, rows = torch.cuda.is_available(), cfg.prompts * cfg.group_size
    ranks = PartialState(
        cpu=not gpu
    ).num_processes  # NOTE: without cpu= it says 1, whatever is true
    batch, updates = rows // (cfg.minibatches * ranks), cfg.minibatches * cfg.inner_epochs
    micro = min(cfg.micro_batch or batch, batch)
    if rows % (cfg.group_size * cfg.minibatches * ranks) or batch % micro:
        raise InputError(
            f"{rows} completions do not split evenly: prompts must be a multiple of minibatches x "
            f"{ranks} processes, and their rows of micro_batch"
        )
    return GRPOConfig(
        cfg.output, seed=cfg.seed, max_steps=cfg.steps * updates, num_iterations=cfg.inner_epochs,
        per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro,
        steps_per_generation=cfg.minibatches * (batch // micro), num_generations=cfg.group_size,
        max_completion_length=cfg.max_new_tokens, temperature=cfg.temperature, top_k=0, top_p=1.0,
        epsilon=1 - low, epsilon_high=high - 1, beta=cfg.kl_coef,
        use_bias_correction_kl=False, disable_dropout=True,
        loss_type={"token": "dapo", "sequence": "grpo", "constant": "dr_grpo"}[cfg.loss_norm],
        scale_rewards="group" if cfg.scale_by_std else "none", max_grad_norm=cfg.max_grad_norm,
        learning_rate=cfg.lr, warmup_steps=cfg.lr_warmup * updates, weight_decay=cfg.weight_decay,
        lr_scheduler_type="constant_with_warmup", logging_steps=updates, report_to="none",
        save_steps=max(1, cfg.save_every) * updates, save_total_limit=2, disable_tqdm=True,
        save_strategy="steps" if cfg.save_every else "no", use_cpu=not gpu, bf16=gpu,
        gradient_checkpointing=cfg.gradient_checkpointing, ddp_find_unused_parameters=False, **more,
    ), updates  # fmt: skip


def open_folder(cfg: TRLConfig) -> None:
    """Raise InputError where cfg.output is not new, nor of a run with these settings."""
    folder = Path(cfg.output)
    if PartialState().is_main_process:
        check_apart(cfg)
        if is_new(folder, "config.json"):
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / "config.json", json.dumps(plain(cfg), indent=1) + "\n")
        else:
            old = read_json(folder / "config.json") | {"steps": cfg.steps}
            refuse_other_settings(folder, old, plain(cfg))
    PartialState().wait_for_everyone()


def last_checkpoint(folder: str) -> tuple[str | None, int]:
    """(path, updates) of the last one that is whole."""
    found = [
        (int(path.parent.name.partition("-")[2]), path.parent)
        for path in Path(folder).glob("checkpoint-*/rm.pt")
    ]
    return (str(max(found)[1]), max(found)[0]) if found else (None, 0)


def train(cfg: TRLConfig, on_row=None, peft_config=None, **more) -> LearningReward:
    """Writes cfg.output: checkpoints, metrics.jsonl, policy and rm. Returns the reward.

    peft_config: of LoRA. more: further settings of trl.GRPOConfig, such as use_vllm=True.
    NOTE: TRL resumes exactly within its first pass over the problems, and repeats its order after.
    """
    learning.check(cfg)
    args, updates = settings(cfg, **more)
    open_folder(cfg)
    # TRL has a reference of its own
    learner, reward = learning.start(replace(cfg, kl_coef=0.0)), LearningReward(cfg)
    if len(learner.problems) < cfg.prompts:
        raise InputError(f"{len(learner.problems)} problems are fewer than prompts={cfg.prompts}")
    reward.tokenizer = learner.tokenizer
    parts = {"rm": reward.rm.model, "rm_optimizer": reward.optimizer}
    last, done = last_checkpoint(cfg.output)
    if last:
        saved = torch.load(Path(last, "rm.pt"), map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    if last is None and Path(cfg.output, "rm").exists():
        raise InputError(
            f"{cfg.output} has ended, without checkpoints to go on from: choose another --output"
        )
    if done >= args.max_steps:  # the trainer would make one more
        if PartialState().is_main_process and not Path(cfg.output, "rm").exists():
            save_model(Path(cfg.output, "policy"), *load_policy(last), replace=True)
            save_model(Path(cfg.output, "rm"), reward.rm.model, reward.rm.tokenizer)
        return reward
    keep = Keep(cfg, updates, on_row, **parts)
    rows = []
    for problem in learner.problems:
        text = defuse(learner.tokenizer, solve_prompt(problem.question))
        prompt = [{"role": "user", "content": text}]
        rows.append({"prompt": prompt, "question": problem.question, "answer": problem.answer})
    trainer = GRPOTrainer(
        learner.policy, reward, args, Dataset.from_list(rows), processing_class=learner.tokenizer,
        callbacks=[keep], peft_config=peft_config,
    )  # fmt: skip
    reward.policy = trainer.model
    if trainer.accelerator.is_main_process:
        keep.forget(done // updates)
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(Path(cfg.output, "policy")))
    if trainer.accelerator.is_main_process:
        save_model(Path(cfg.output, "rm"), reward.rm.model, reward.rm.tokenizer, replace=True)
    return reward


if __name__ == "__main__":
    command_line(TRLConfig, train)
