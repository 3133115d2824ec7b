r"""The embedded world: a tiny Qwen2 that can be right but often is not, trained in minutes.

RL with verifiable rewards mostly brings out what the pretrained prior already holds. So that a
laptop can show it, this file makes such a prior. Problems are chains of sums
(`data.arithmetic_problem`). Solutions come in three strategies, each with its own hit rate:

    guess    I guess \boxed{9}                                        seldom right
    words    7 plus 5 is 12 minus 3 is 9 so \boxed{9}                 often right
    python   python x = 7 x += 5 # 12 x -= 3 # 9 print \boxed{9}      mostly right

and some without the \boxed{}. Supervised training (`warm_up`) on a mixture of them, mistakes and
all (a `Prior`), gives a policy that knows the arithmetic but samples the mistakes that it was
taught too. A mistake is a *slip*, any other number, which a policy that grows more confident makes
less often; or a *habit*, the last operation left out, which it makes more often where most
solutions do. The same model also learns two other roles of Cooper, each behind its instruction: the
*assistant*, which rewrites a correct solution into a wrong one, and the *judge*.

The tokenizer is word-level, one token per number; each instruction of data.py is one token, so that
the toy and a real Qwen are prompted with the same text. Both are ordinary Hugging Face folders.
NOTE: the warm-up draws from all questions, those of the test split too: it is the pretraining of
this world. What is held out is held out from RL and from the reward model.

    python tiny.py --prior mixed --output runs/demo/policy
"""

import random
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import data
from support.checks import check_settings
from support.files import finished, save_model, settings_note
from support.flags import command_line
from support.progress import progress
from support.run import rng
from verifier import verify

STRATEGIES = ("guess", "words", "python")


@dataclass(frozen=True)
class Strategy:
    """How common a way of solving is in the warm-up texts, and how often it goes wrong."""

    share: float  # of the solutions
    slip: float  # chance of a wrong result: of the whole sum for guess, of each step otherwise
    habit: float = 0.0  # chance that the last operation is left out


@dataclass(frozen=True)
class Prior:
    """What the warm-up texts look like; the three shares sum to 1."""

    guess: Strategy
    words: Strategy
    python: Strategy
    box: float = 0.8  # share of solutions with a \\boxed{}


# Cooper's three arms start from "mixed". The others are for the spurious rewards: accuracy with
# code and without is about that of table 1 of Spurious Rewards (Qwen2.5-Math-7B 61% and 28%,
# OLMo2-7B-SFT 21% and 40%), and so is Qwen's share of code (65%); OLMo's is 98%, which would leave
# nothing to choose.
PRIORS = {
    "mixed": Prior(
        guess=Strategy(share=0.50, slip=0.90),
        words=Strategy(share=0.20, slip=0.15),
        python=Strategy(share=0.30, slip=0.04),
    ),
    # code common and accurate
    "qwen_math": Prior(
        guess=Strategy(share=0.15, slip=0.30, habit=0.70),
        words=Strategy(share=0.20, slip=0.05, habit=0.45),
        python=Strategy(share=0.65, slip=0.05, habit=0.15),
    ),
    # the same, confident: the chance of code is out of the upper bound's reach, 0.9 * 1.2 > 1
    "qwen_confident": Prior(
        guess=Strategy(share=0.03, slip=0.30, habit=0.70),
        words=Strategy(share=0.07, slip=0.05, habit=0.45),
        python=Strategy(share=0.90, slip=0.05, habit=0.15),
    ),
    # code rare and inaccurate
    "llama": Prior(
        guess=Strategy(share=0.30, slip=0.30, habit=0.70),
        words=Strategy(share=0.67, slip=0.05, habit=0.35),
        python=Strategy(share=0.03, slip=0.05, habit=0.75),
    ),
    # code common and inaccurate
    "olmo_sft": Prior(
        guess=Strategy(share=0.05, slip=0.30, habit=0.70),
        words=Strategy(share=0.25, slip=0.05, habit=0.35),
        python=Strategy(share=0.70, slip=0.05, habit=0.75),
    ),
}


# --------------------------------------------------------------------------------------------------
# Texts


def write_solution(
    question: str, strategy: str, rng: random.Random, error=0.0, slip=None, box=True, short=False
):
    r"""One solution text. A miswritten result is carried on: later steps build on it.

    error: chance that a result is off. slip: index of a step that is certainly off; one past the
    last step it is the answer, which then contradicts the steps. short: leave out the last
    operation.

    >>> write_solution("7 + 5 - 3 = ?", "words", random.Random(0))
    '7 plus 5 is 12 minus 3 is 9 so \\boxed{9}'
    """
    first, *rest = question.removesuffix(" = ?").split()
    steps, total = [(op, int(n)) for op, n in zip(rest[::2], rest[1::2])], int(first)
    words = {"guess": "I guess", "words": first, "python": f"python x = {first}"}[strategy]
    if short:
        steps = steps[:-1]
    if strategy == "guess":  # the whole sum at once: one place to be wrong
        steps = [("+", sum(n if op == "+" else -n for op, n in steps))]
    for i, (op, n) in enumerate(steps):
        total = total + n if op == "+" else total - n
        if i == slip or rng.random() < error:
            total = rng.choice([t for t in range(data.MAX_TOTAL + 1) if t != total])
        total = min(max(total, 0), data.MAX_TOTAL)
        if strategy == "words":
            words += f" {'plus' if op == '+' else 'minus'} {n} is {total}"
        elif strategy == "python":
            words += f" x {op}= {n} # {total}"
    if slip == len(steps):
        total = rng.choice([t for t in range(data.MAX_TOTAL + 1) if t != total])
    words += {"guess": "", "words": " so", "python": " print"}[strategy]
    return f"{words} \\boxed{{{total}}}" if box else f"{words} {total}"


def draw_strategy(rng: random.Random, prior: Prior) -> str:
    return rng.choices(STRATEGIES, [getattr(prior, name).share for name in STRATEGIES])[0]


def sampled_solution(question: str, rng: random.Random, prior: Prior) -> str:
    """A solver who works as the prior says."""
    name = draw_strategy(rng, prior)
    strategy, box = getattr(prior, name), rng.random() < prior.box
    short = strategy.habit > 0 and rng.random() < strategy.habit
    return write_solution(question, name, rng, strategy.slip, box=box, short=short)


def solve_example(rng: random.Random, prior: Prior) -> tuple[str, str]:
    """(prompt, completion) of the solver."""
    question = data.arithmetic_problem(rng, rng.choice((3, 4))).question
    return data.solve_prompt(question), sampled_solution(question, rng, prior)


def rewrite_example(rng: random.Random, prior: Prior) -> tuple[str, str]:
    """(prompt, completion) of the assistant: same strategy, one slip, what follows builds on it."""
    question = data.arithmetic_problem(rng, rng.choice((3, 4))).question
    strategy = draw_strategy(rng, prior)
    steps = 1 if strategy == "guess" else (len(question.split()) - 3) // 2
    slip = rng.randrange(steps + 1)
    right, wrong = (write_solution(question, strategy, rng, slip=s) for s in (None, slip))
    return data.rewrite_prompt(question, right), wrong


def judge_example(rng: random.Random, prior: Prior) -> tuple[str, str]:
    """(prompt, completion) of the judge: half of the references agree with the solution."""
    question = data.arithmetic_problem(rng, rng.choice((3, 4))).question
    solution = sampled_solution(question, rng, prior)
    reference = solution.replace("}", " ").replace("{", " ").split()[-1]
    if rng.random() < 0.5:
        reference = str(rng.randint(0, data.MAX_TOTAL))
    verdict = "Yes" if verify(solution, reference, require_box=True) else "No"
    return data.judge_prompt(question, reference, solution), verdict


# --------------------------------------------------------------------------------------------------
# Tokenizer and model

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level: the numbers 0..20, the words of the world, each instruction and tag one token."""
    words = [str(n) for n in range(data.MAX_TOTAL + 1)]
    words += "+ - += -= = ? # x \\boxed{ } I guess plus minus is so python print : Yes No".split()
    words += "Problem Correct Reference Solution solution answer".split()
    special = ["<|pad|>", "<|end|>", "<|unk|>", "<|user|>", "<|assistant|>"]
    tags = [f"<{s}{t}>" for t in ("question", "reference_answer", "completion") for s in ("", "/")]
    whole = [data.SOLVE, data.REWRITE, data.JUDGE, *tags]
    vocab = {word: i for i, word in enumerate(special + whole + words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\\boxed\{|[-+]=|\d+|[A-Za-z]+|[^\sA-Za-z\d]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(  # tokens joined by spaces, none inside a box
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace("\\boxed{ ", "\\boxed{"),
            decoders.Replace(" }", "}"),
        ]
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in whole])
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unk|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_policy(tokenizer, hidden=64, layers=3, heads=4) -> Qwen2ForCausalLM:
    """A Qwen2 of 0.15 M parameters, drawn at random with torch's global seed."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            max_position_embeddings=256,
            # NOTE: two settings of the big models do not suit one 64 wide. Weights drawn at 0.02
            # start too near zero, and a rotary base of 10,000 is made for texts of thousands of
            # tokens; here nothing is further away than a hundred.
            initializer_range=0.08,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


# --------------------------------------------------------------------------------------------------
# Supervised warm-up

# How many examples of each role a training step holds; each role is padded by itself.
ROLES = ((solve_example, 64), (rewrite_example, 16), (judge_example, 48))


def encode(tokenizer, examples) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, completion) pairs -> input_ids, labels [B, L]; -100, no loss, off the completion."""
    chats = [[{"role": "user", "content": prompt}] for prompt, _ in examples]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    prompts = tokenizer(texts, add_special_tokens=False).input_ids
    completions = [completion + tokenizer.eos_token for _, completion in examples]
    answers = tokenizer(completions, add_special_tokens=False).input_ids
    length = max(len(p) + len(a) for p, a in zip(prompts, answers))
    ids = torch.full((len(examples), length), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    for row, (p, a) in enumerate(zip(prompts, answers)):
        ids[row, : len(p) + len(a)] = torch.tensor(p + a)
        labels[row, len(p) : len(p) + len(a)] = torch.tensor(a)
    return ids, labels


@dataclass(frozen=True)
class WarmUpConfig:
    prior: Literal[tuple(PRIORS)] = "mixed"  # what the policy is taught, see PRIORS
    output: str = "runs/demo/policy"  # folder of the policy
    helpers: bool = True  # teach the roles of assistant and judge as well; Cooper needs them
    steps: int = 800  # updates
    muon_lr: float = 0.02  # of the weight matrices (Muon), decaying linearly to 0
    lr: float = 3e-3  # of embeddings, norms and biases (AdamW), likewise
    seed: int = 0  # of weights and texts


def warm_up(cfg: WarmUpConfig) -> None:
    """Train a fresh policy on the texts of a prior, save model and tokenizer; once only.

    Loss: mean cross-entropy over completion tokens, the roles averaged.
    """
    check_settings(cfg, steps=(1, None))
    if finished(cfg):
        return
    torch.manual_seed(cfg.seed)
    random = rng(cfg.seed, "warm-up")
    tokenizer = build_tokenizer()
    policy = build_policy(tokenizer)
    # Muon for the matrices, AdamW for the rest: it needs about half of the steps of AdamW alone.
    matrices = [p for name, p in policy.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in policy.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=cfg.muon_lr, weight_decay=0.01, momentum=0.9),
        torch.optim.AdamW(others, lr=cfg.lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda i: min(1, (i + 1) / 20, 1 - i / cfg.steps))
        for o in optimizers
    ]
    roles = ROLES if cfg.helpers else ROLES[:1]
    bar = progress(range(cfg.steps), f"warm-up {cfg.prior}")
    for _ in bar:
        for make, count in roles:
            examples = [make(random, PRIORS[cfg.prior]) for _ in range(count)]
            ids, labels = encode(tokenizer, examples)
            loss = policy(input_ids=ids, labels=labels).loss
            (loss / len(roles)).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    save_model(cfg.output, policy, tokenizer, settings=settings_note(cfg))


if __name__ == "__main__":
    command_line(WarmUpConfig, warm_up)
