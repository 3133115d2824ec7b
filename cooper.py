r"""Cooper: co-optimising policy and reward model (arXiv:2508.05613).

A frozen reward model gets hacked: the policy finds texts that it scores near 1 and that are wrong.
Cooper goes on training it, on pairs that need no human: a completion that the rule verifier proves
correct against a wrong one. Each step:

    1 sample                G completions for each of N prompts
    2 score                 sigmoid(z(question, reference, completion)), before the model's update
    3 advantages            group-relative: grpo.group_advantages
    4 policy update         clipped objective - kl_coef * KL: grpo.update
    5 positives             a completion of each prompt, at random among those the rule proves right
    6 negatives             a wrong completion of the same prompt, see below
    7 reward-model update   L = -mean log sigmoid(z_pos - z_neg)
    8 log / eval

Where the negatives come from. A frozen assistant LLM rewrites the positive into a wrong solution,
until the rule does not call it right (pairs.py has two other ways). Where the two texts differ in
more than being right the reward model may learn that instead, who wrote a text say (LOG.md).

Where paper and released code differ this follows the paper: the positive is random, not the first,
and a rewrite is held against the reference, not against the positive. The paper draws one pair of a
prompt, this up to four, for as many updates (`rm_updates`). `--rm_lr 0` is the frozen arm: GRPO on
that reward model, bit for bit.

    python cooper.py --model runs/demo/policy --rm_model runs/demo/rm
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch

import grpo
import rewards
import rules
from annotation import Example, label
from data import draw_problems
from eval import eval_metrics, evaluation_due
from grpo import GRPOConfig, group_advantages, update
from learner import frozen
from metrics import measure, measure_pairs, order, rollout_metrics, verdict_metrics
from pairs import answered_rate, find_negatives, make_negatives, pair_up, select_positives
from reward_model import RewardModel, pairwise_loss
from rollout import load_policy, sample
from support import memory
from support.errors import InputError
from support.flags import command_line
from support.optimize import norm_stats, optimizer_step
from support.run import Run, rng, summary, torch_rng
from survey import objectives, sampling

HELP = objectives.HELP


@dataclass(frozen=True)
class CooperConfig(GRPOConfig):
    output: str = "runs/cooper"  # folder of this run; one that was interrupted there goes on
    reward: str = "rm"  # the reward model's score; or a mix, "0.8 rm + 0.2 rule": see rewards.py
    rm_model: str = "runs/demo/rm"  # reward model to start from; of a causal LM the head is new
    neutralise: bool = True  # tags that a text spells stay text; off: the policy can write them
    assistant: str | None = None  # LLM that writes the negatives, frozen; None takes model

    lr: float = 1e-4  # of AdamW; 1e-6 for a real LLM
    steps: int = 120  # rollout phases
    kl_coef: float = 0.001  # weight of KL(policy || start); 0 loads no reference model
    rm_lr: float = 1e-3  # of AdamW; 1e-5 for a real LLM; 0 freezes the reward model
    rm_every: int = 1  # steps from one update of the reward model to the next
    rm_updates: int = 4  # its updates at such a step; also the most pairs of one prompt
    rm_micro_batch: int | None = None  # pairs per forward pass; None takes the whole minibatch
    stale_pairs: bool = False  # the pairs come from samples of the initial policy
    negatives: Literal["assistant", "rollouts", "perturb"] = "assistant"  # see pairs.py
    max_retries: int = 3  # further tries of the assistant where a rewrite is not wrong
    assistant_temperature: float = 0.7  # of the assistant's sampling
    assistant_max_new_tokens: int = 40  # length limit of a rewrite, tokens


# --------------------------------------------------------------------------------------------------
# Stage 7


@torch.enable_grad()
def update_reward_model(rm: RewardModel, optimizer, pairs: list[tuple], cfg: CooperConfig) -> dict:
    """Pairwise loss on (question, reference, positive, negative) tuples, `rm_updates` updates.

    Returns rm/loss, rm/margin (mean of z_pos - z_neg), rm/pair_accuracy, and norm_stats as rm/...
    """
    if not pairs:
        return {}
    rm.model.train()
    sums, norms = torch.zeros(3), []
    size = math.ceil(len(pairs) / cfg.rm_updates)
    for minibatch in (pairs[i : i + size] for i in range(0, len(pairs), size)):
        part = cfg.rm_micro_batch or size
        for micro in (minibatch[i : i + part] for i in range(0, len(minibatch), part)):
            questions, references, positive, negative = map(list, zip(*micro))
            # positives and negatives in one pass: the same padding for both
            z = rm.logits(questions * 2, references * 2, positive + negative)
            z_pos, z_neg = z.chunk(2)
            loss = pairwise_loss(z_pos, z_neg) * len(micro) / len(minibatch)
            loss.backward()
            margin = (z_pos - z_neg).detach().cpu()
            right = (margin > 0).sum().item()
            sums += torch.tensor([loss.item() * len(minibatch), margin.sum().item(), right])
        norms.append(optimizer_step(rm.model, optimizer, cfg.max_grad_norm))
    rm.model.eval()
    loss, margin, accuracy = (sums / len(pairs)).tolist()
    named = {f"rm/{name}": value for name, value in norm_stats(norms).items()}
    return {"rm/loss": loss, "rm/margin": margin, "rm/pair_accuracy": accuracy} | named


# --------------------------------------------------------------------------------------------------
# Watching the reward model


def held_out_set(learner, assistant, cfg: CooperConfig) -> tuple[list[Example], list[tuple]]:
    """A fixed set to watch the reward model on: samples of the initial policy with their labels;
    and (question, reference, right, wrong), of each problem one right sample and its rewrite."""
    examples, pairs, generator = [], [], torch_rng(learner.policy.device, cfg.seed, "held out")
    size = {"max_new_tokens": cfg.assistant_max_new_tokens, "generator": generator}
    for i in range(0, len(learner.held_out), cfg.prompts):
        rollouts = sample(
            learner.policy, learner.tokenizer, learner.held_out[i : i + cfg.prompts],
            cfg.eval_samples, cfg.max_new_tokens, generator=generator,
        )  # fmt: skip
        correct = rewards.rule(rollouts)
        examples += label(rollouts, correct.tolist())
        rows = select_positives(rollouts, correct, rng(cfg.seed, "held out", i))
        right, problems = [rollouts.texts[r] for r in rows], [rollouts.problems[r] for r in rows]
        wrong = make_negatives(*assistant, right, problems, **size)
        pairs += pair_up(rollouts, rows, wrong)
    return examples, pairs


def watch(learner, rm: RewardModel, watched: tuple, cfg: CooperConfig) -> dict:
    """Evaluation of both: the policy by the rule, the reward model on a held_out_set, if any."""
    if not cfg.eval_every:
        return {}
    examples, pairs = watched
    measured = measure(rm, examples) | measure_pairs(rm, pairs)
    return eval_metrics(learner, cfg) | {f"rm/held_out_{k}": v for k, v in measured.items()}


def agreement(score: torch.Tensor, correct: torch.Tensor) -> float:
    """Share of rollouts on which the reward model (score above 1/2) and the rule say the same."""
    return ((score > 0.5) == correct.bool()).float().mean().item()


# --------------------------------------------------------------------------------------------------
# The loop


def train(cfg: CooperConfig, on_row=None) -> list[dict]:
    """Policy and reward model, step by step: grpo.train with stages 5-7.

    Writes cfg.output (see support/run.py). Returns its history, and on_row is called, as in
    grpo.train.
    """
    cfg = objectives.with_preset(cfg)
    grpo.check(cfg)
    if "rm" not in rewards.names_in(cfg.reward):
        raise InputError(f"reward {cfg.reward!r} does without the reward model: that is grpo.py")
    with Run(cfg, on_row=on_row) as run:
        learner = grpo.start(cfg)
        policy, tokenizer, optimizer = learner.policy, learner.tokenizer, learner.optimizer
        N, G, T = cfg.prompts, cfg.group_size, cfg.max_new_tokens
        # draws the head, if rm_model is a causal LM
        torch.manual_seed(cfg.seed)
        rm = RewardModel.load(cfg.rm_model, cfg.neutralise)
        says = rules.rule_of(cfg.rule)
        rule = rules.by_rule(says)
        reward = rewards.by_name(cfg.reward, cfg.gamma, rule, rm=rm.reward)
        rm_optimizer = torch.optim.AdamW(rm.model.parameters(), lr=cfg.rm_lr, weight_decay=0.01)
        # without a copy it is only read before training
        asked = cfg.rm_lr > 0 and (cfg.stale_pairs or cfg.negatives == "assistant")
        initial = frozen(learner, cfg) if asked else policy
        assistant = initial, tokenizer
        if cfg.assistant:
            assistant = load_policy(cfg.assistant, cuda_graphs=cfg.cuda_graphs)
        watched = held_out_set(learner, assistant, cfg) if cfg.eval_every else None
        parts = {"policy": memory.trained(policy), "optimizer": optimizer} | learner.extra
        run.resume(rm=rm.model, rm_optimizer=rm_optimizer, **parts)
        if not run.history:
            run.log({"step": 0} | watch(learner, rm, watched, cfg))

        for step in run.steps():
            began, seeded = time.time(), torch_rng(policy.device, cfg.seed, "step", step)
            optimizer.param_groups[0]["lr"] = cfg.lr * min(1.0, step / max(cfg.lr_warmup, 1))

            # 1 sample
            draw, heat = rng(cfg.seed, "problems", step), cfg.temperature
            problems = draw_problems(learner.problems, N, draw, learner.chances)
            rollouts = sample(learner.writer, tokenizer, problems, G, T, heat, generator=seeded)

            # 2 score
            score = rewards.checked(reward, rollouts)
            if cfg.dynamic_sampling or cfg.overlong:
                rollouts, score = sampling.replace_and_punish(
                    rollouts, score, learner, reward, cfg, draw, seeded
                )

            # what the reward model alone thinks of them
            alone = cfg.reward == "rm" and not cfg.overlong
            liked = (score if alone else rewards.checked(rm.reward, rollouts)).cpu()

            # 3 advantages
            adv = group_advantages(score.view(N, G), cfg.scale_by_std).flatten()
            if not objectives.is_plain(cfg):
                rollouts, adv = objectives.token_advantages(
                    adv, learner, rollouts, score, reward, cfg, seeded
                )

            # 4 policy update
            now = sampling.adapted(cfg, learner, run.history)
            stats = update(policy, optimizer, rollouts, adv, now, learner.reference, seeded)

            if cfg.rm_lr > 0 and step % cfg.rm_every == 0:
                draw, source = rng(cfg.seed, "pairs", step), rollouts
                if cfg.stale_pairs:
                    source = sample(initial, tokenizer, problems, G, T, generator=seeded)

                # 5 positives
                proved = rule(source)
                positives = select_positives(source, proved, draw, cfg.rm_updates)

                # 6 negatives
                negatives = find_negatives(
                    source, proved, positives, draw, assistant, cfg, step, says
                )

                # 7 reward-model update
                pairs = pair_up(source, positives, negatives)
                # of dropout, if the model has any
                torch.manual_seed(draw.getrandbits(32))
                stats |= update_reward_model(rm, rm_optimizer, pairs, cfg)
                stats["rm/valid_rate"] = len(pairs) / (N * cfg.rm_updates)
                stats["rm/answered_rate"] = answered_rate(pairs)

            # 8 log / eval
            # a rule answers on the CPU
            score, correct = score.cpu(), rewards.rule(rollouts)
            row = {"step": step} | rollout_metrics(rollouts, score, correct, rule) | stats
            row |= verdict_metrics("rm", liked > 0.5, correct) | rm.truncations()
            row |= {"rm/agreement": agreement(liked, correct), "rm/order": order(liked, correct, G)}
            row |= sampling.after_step(learner, rollouts, rule, cfg, step)
            row["step_time"] = time.time() - began
            if evaluation_due(cfg, step):
                row |= watch(learner, rm, watched, cfg)
                run.log_samples(step, rollouts, score, correct)
            run.log(row)
            run.checkpoint(step)

        run.save_model("policy", memory.merged(policy), tokenizer)
        run.save_model("rm", rm.model, rm.tokenizer)
    return run.history


def main(cfg: CooperConfig) -> None:
    print(summary(train(cfg), cfg.output))


if __name__ == "__main__":
    command_line(CooperConfig, main)
