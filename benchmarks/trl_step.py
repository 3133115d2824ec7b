r"""Seconds per RL step, ours beside TRL's GRPOTrainer: sample completions, score, one update.

    pip install -r requirements-trl.txt
    python benchmarks/trl_step.py                                   # the start of a GRPO run
    python benchmarks/trl_step.py --model runs/grpo/policy          # the end of one (grpo.py)
    python benchmarks/trl_step.py --rm runs/demo/rm                 # a step of Cooper

The same for both: model folder, tokenizer, problems and chat text, 32 prompts x 8 completions of at
most 40 tokens at temperature 1 from the full distribution, the rule verifier as the reward, group
advantages, token-mean loss, no KL term and hence no reference model, one AdamW update on the whole
batch, fp32 on a CPU with the same number of threads. For TRL this means to switch off what slows it
down here by default: bfloat16 and gradient checkpointing. The learning rate is too small to change
the policy, so completions stay equally long on both sides.

Both run in one process, a few steps of one and then a few of the other, so that whatever else the
machine does hits both. `wall` is the median of seconds per step, `cpu` that of processor seconds
(all threads; what other processes take is not in it). A TRL step is everything from one log call to
the next; ours is stages 1-4 of `grpo.train`. Where the time goes:

    sample   the decoding loop with its tokenizing and padding (rollout.sample; TRL: generate)
    score    the reward function
    update   forward, backward, optimizer; in TRL also what its training loop does around them
    other    metrics; in TRL also texts to tensors and back

With `--rm` a step is one of Cooper: scores of the reward model, pairs by the assistant, its update.
TRL's side is cooper_trl.py, whose reward model is the same code; `score` is stages 2 and 5 to 7 on
both sides.

Completions whose advantage is 0 cost ours nothing in the update (grpo.update); in a late run that
is most of them. Ours takes the batch in micro-batches of rows of like length, which does not change
the gradient and leaves less padding to compute (`--micro_batch none` for all rows at once); TRL
pads all rows alike.
"""

import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import cooper
import grpo
import rewards
import rules
from learner import frozen
from metrics import rollout_metrics
from pairs import find_negatives, pair_up, select_positives
from prompts import solve_prompt
from reward_model import RewardModel
from rollout import load_policy
from support.errors import InputError
from support.flags import command_line
from support.run import rng
from verifier import verify

try:
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from cooper_trl import LearningReward
except ImportError:
    raise SystemExit("error: this comparison needs TRL: pip install trl==1.16.0") from None

LEARNING_RATE = 1e-9  # a real update that moves nothing: lengths stay comparable


@dataclass(frozen=True)
class StepConfig:
    model: str = "runs/demo/policy"  # policy both start from: Hugging Face folder or hub name
    rm: str | None = None  # a reward model's folder: steps of Cooper instead of GRPO on the rule
    threads: int = 1  # of torch
    steps: int = 30  # measured steps per side
    warm_up: int = 2  # steps per side that run before and do not count
    block: int = 2  # steps of one side before it is the other's turn
    prompts: int = 32  # N
    group_size: int = 8  # G
    max_new_tokens: int = 40  # length limit of a completion, tokens
    micro_batch: int | None = 64  # ours: rows of like length a forward pass; none takes all at once


class Stopwatch:
    """Seconds of the current step, and of the functions in it that are wrapped with `timed`."""

    def __init__(self):
        self.rows = []
        self.start()

    def start(self):
        self.parts = defaultdict(float)
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self, **facts):
        """End the step; the next one begins."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        self.rows.append({"wall": wall, "cpu": cpu, **self.parts, **facts})
        self.start()

    def timed(self, name, function):
        def wrapped(*args, **kwargs):
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.parts[name] += time.perf_counter() - began

        return wrapped


def settings(cfg: StepConfig):
    """Of our side, and of the reward model on both."""
    shared = dict(
        model=cfg.model, prompts=cfg.prompts, group_size=cfg.group_size, minibatches=1,
        max_new_tokens=cfg.max_new_tokens, lr=LEARNING_RATE, micro_batch=cfg.micro_batch,
        eval_problems=1,
    )  # fmt: skip
    if cfg.rm is None:
        return grpo.GRPOConfig(**shared)
    return cooper.CooperConfig(rm_model=cfg.rm, rm_lr=LEARNING_RATE, kl_coef=0.0, **shared)


class Ours:
    """Our side: one call is one step."""

    def __init__(self, cfg: StepConfig, watch: Stopwatch):
        self.cfg, self.watch, self.step = settings(cfg), watch, 0
        self.learner = grpo.start(self.cfg)
        # The product's own step, timed from outside: its module looks these names up when it runs.
        grpo.sample = watch.timed("sample", grpo.sample)
        grpo.update = watch.timed("update", grpo.update)
        self.reward, self.learn = watch.timed("score", rewards.rule), None
        if cfg.rm:
            rm, assistant = RewardModel.load(cfg.rm), (frozen(self.learner, self.cfg),)
            optimizer = torch.optim.AdamW(rm.model.parameters(), lr=LEARNING_RATE)
            self.reward = watch.timed("score", rm.reward)
            assistant += (self.learner.tokenizer,)
            self.learn = watch.timed("score", partial(self.stages_5_to_7, rm, optimizer, assistant))

    def stages_5_to_7(self, rm, optimizer, assistant, rollouts, draw):
        cfg, proved, says = self.cfg, rewards.rule(rollouts), rules.rule_of(self.cfg.rule)
        positives = select_positives(rollouts, proved, draw, cfg.rm_updates)
        found = find_negatives(rollouts, proved, positives, draw, assistant, cfg, self.step, says)
        cooper.update_reward_model(rm, optimizer, pair_up(rollouts, positives, found), cfg)

    def __call__(self):
        self.step += 1
        self.watch.start()
        cfg, learner, step = self.cfg, self.learner, self.step
        problems = learner.problems[step * cfg.prompts : (step + 1) * cfg.prompts]
        rollouts = grpo.sample(
            learner.policy, learner.tokenizer, problems, cfg.group_size, cfg.max_new_tokens
        )
        score = self.reward(rollouts)
        adv = grpo.group_advantages(score.view(cfg.prompts, cfg.group_size)).flatten()
        grpo.update(learner.policy, learner.optimizer, rollouts, adv, cfg)
        if self.learn:
            self.learn(rollouts, rng(0, "pairs", step))
        metrics = rollout_metrics(rollouts, score.cpu(), score.cpu(), rewards.rule)
        self.watch.stop(length=metrics["completions/mean_length"], reward=metrics["reward"])


class TakeTurns(TrainerCallback):
    """Trainer drives the run; after every `block` of its steps we take as many of ours."""

    def __init__(self, cfg: StepConfig, watch: Stopwatch, ours: Ours):
        self.block, self.watch, self.ours = cfg.block, watch, ours

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:  # the first step does not pay for setting up the trainer
            self.watch.start()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "reward" not in logs:  # the summary at the end of training
            return
        self.watch.stop(length=logs["completions/mean_length"], reward=logs["reward"])
        if state.global_step % self.block == 0:
            for _ in range(self.block):
                self.ours()
        self.watch.start()


def rule(completions, answer, **columns):
    """rewards.rule as TRL calls it: conversations in, floats out."""
    pairs = zip(completions, answer)
    return [float(verify(c[0]["content"], a, require_box=True)) for c, a in pairs]


def trl_trainer(cfg: StepConfig, watch: Stopwatch, problems, output: str) -> GRPOTrainer:
    # NOTE: our loaded tokenizer, not AutoTokenizer's: see rollout.load_tokenizer.
    policy, tokenizer = load_policy(cfg.model)
    reward, rows = rule, []
    if cfg.rm:
        reward = LearningReward(settings(cfg))
        reward.tokenizer = tokenizer
    for p in problems:
        prompt = [{"role": "user", "content": solve_prompt(p.question)}]
        rows.append({"prompt": prompt, "question": p.question, "answer": p.answer})
    args = GRPOConfig(
        output_dir=output,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=cfg.warm_up + cfg.steps,
        per_device_train_batch_size=cfg.prompts * cfg.group_size,  # one update on the whole batch
        num_generations=cfg.group_size,
        max_completion_length=cfg.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,  # no KL: no reference model
        loss_type="dapo",  # token mean
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GRPOTrainer(
        model=policy, processing_class=tokenizer, args=args, reward_funcs=reward,
        train_dataset=Dataset.from_list(rows),
    )  # fmt: skip
    if cfg.rm:
        reward.policy = trainer.model
    trainer.remove_callback(PrinterCallback)
    # Private names of TRL 1.16; where another version lacks them only the split suffers.
    for part, name in (
        ("sample", "_generate_single_turn"),
        ("score", "_calculate_rewards"),
        ("prepare", "_prepare_inputs"),
    ):
        if hasattr(trainer, name):
            setattr(trainer, name, watch.timed(part, getattr(trainer, name)))
    return trainer


def split(row: dict) -> dict:
    """Add what was not timed itself: in TRL the update is the step without preparing its batch."""
    row = {"sample": 0.0, "score": 0.0} | row
    if "prepare" in row:
        row["update"] = row["wall"] - row["prepare"]
    known = row["sample"] + row["score"] + row.get("update", 0.0)
    return row | {"other": row["wall"] - known}


def main(cfg: StepConfig) -> None:
    if cfg.warm_up % cfg.block or cfg.steps % cfg.block:
        raise InputError("warm_up and steps must be multiples of block")
    torch.set_num_threads(cfg.threads)
    watches = {"ours": Stopwatch(), "TRL": Stopwatch()}
    ours = Ours(cfg, watches["ours"])
    with TemporaryDirectory() as folder:
        trainer = trl_trainer(cfg, watches["TRL"], ours.learner.problems, folder)
        trainer.add_callback(TakeTurns(cfg, watches["TRL"], ours))
        trainer.train()

    columns = ("wall", "cpu", "sample", "score", "update", "other", "length", "reward")
    print(
        f"{cfg.prompts} x {cfg.group_size} completions, at most {cfg.max_new_tokens} tokens, "
        f"{cfg.threads} thread(s), median of {cfg.steps} steps (length, reward: mean)"
    )
    print(" " * 5 + "".join(f"{name:>9}" for name in columns))
    medians = {}
    for side, watch in watches.items():
        rows = [split(row) for row in watch.rows[cfg.warm_up :]]
        medians[side] = {name: statistics.median(row[name] for row in rows) for name in columns}
        for name in ("length", "reward"):
            medians[side][name] = statistics.mean(row[name] for row in rows)
        print(f"{side:5}" + "".join(f"{medians[side][name]:9.3f}" for name in columns))
    ratio = {name: medians["TRL"][name] / medians["ours"][name] for name in columns[:5]}
    print("ratio" + "".join(f"{ratio[name]:9.2f}" for name in columns[:5]))


if __name__ == "__main__":
    command_line(StepConfig, main)
