"""Losses by hand, the template, invariances of the score, annotation, a fit on eight examples."""

import random

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import annotation
import reward_model
from annotation import Example, swap_references
from data import InputError, Problem
from reward_model import RewardModel, bce_loss, pairwise_loss

EIGHT = [
    Example("7 + 5 = ?", "12", f"{text} \\boxed{{{answer}}}", label)
    for text in ("I guess", "7 plus 5 is 12 so", "python x = 7 x += 5 # 12 print", "so")
    for answer, label in ((12, 1), (9, 0))
]


@pytest.fixture
def rm(untrained):
    torch.manual_seed(0)
    return RewardModel.load(untrained)


def test_losses_by_hand():
    z, y = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1, 1, 0])
    # log 2, log(1 + e^-2), log(1 + e^-1)
    assert bce_loss(z, y).item() == pytest.approx((0.693147 + 0.126928 + 0.313262) / 3, abs=1e-6)
    loss = pairwise_loss(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
    assert loss.item() == pytest.approx(
        (0.126928 + 1.313262) / 2, abs=1e-6
    )  # log(1+e^-2), log(1+e)


def test_losses_gradcheck():
    a, b = torch.randn(
        2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).unbind()
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: bce_loss(z, torch.tensor([1, 0, 1, 1, 0])), a)
    assert torch.autograd.gradcheck(pairwise_loss, (a, b))


def test_losses_do_not_overflow():
    far = torch.tensor([1e4, -1e4])
    assert bce_loss(far, torch.tensor([0, 1])).item() == pytest.approx(1e4)
    assert pairwise_loss(-far[:1], far[:1]).item() == pytest.approx(2e4)


def test_score_does_not_depend_on_order_padding_or_batch(rm):
    columns = reward_model._columns(EIGHT)
    score = rm.score(*columns)
    assert score.min() > 0 and score.max() < 1 and len(set(score.tolist())) == 8
    backwards = rm.score(*[list(reversed(c)) for c in columns])
    assert torch.allclose(score, backwards.flip(0), atol=1e-6)
    alone = torch.cat([rm.score(*[[c[i]] for c in columns]) for i in range(8)])
    assert torch.allclose(score, alone, atol=1e-6), "the score is read at a padding position"
    rm.batch = 3
    assert torch.allclose(score, rm.score(*columns), atol=1e-6)


def test_reads_the_last_token_where_pad_is_eos(untrained):
    rm = RewardModel.load(untrained)
    expected = rm.score(*reward_model._columns(EIGHT))
    rm.tokenizer.pad_token = rm.tokenizer.eos_token
    other = RewardModel(rm.model, rm.tokenizer)
    assert torch.allclose(other.score(*reward_model._columns(EIGHT)), expected, atol=1e-6)


def test_score_reads_question_reference_and_completion(rm):
    base = rm.score(["7 + 5 = ?"], ["12"], ["I guess \\boxed{12}"])
    for changed in (
        ("7 + 6 = ?", "12", "I guess \\boxed{12}"),
        ("7 + 5 = ?", "9", "I guess \\boxed{12}"),
        ("7 + 5 = ?", "12", "I guess \\boxed{9}"),
    ):
        assert rm.score(*[[x] for x in changed]) != base


def test_scoring_leaves_no_gradient_and_training_mode_off(rm):
    rm.model.train()
    assert not rm.score(*reward_model._columns(EIGHT)).requires_grad
    assert not rm.model.training, "dropout would make rewards random"
    assert rm.logits(*reward_model._columns(EIGHT)).requires_grad


def test_fits_eight_examples_and_then_the_reference_decides(rm):
    wrong_reference = [
        Example(e.question, "9" if e.reference == "12" else "12", e.completion, 1 - e.label)
        for e in EIGHT
    ]
    examples = EIGHT + wrong_reference  # every text appears with both labels
    cfg = reward_model.RewardModelConfig(steps=60, batch=32, lr=3e-3)
    before = bce_loss(
        rm.logits(*reward_model._columns(examples)), torch.tensor([e.label for e in examples])
    )
    reward_model.fit(rm, examples, cfg)
    after = bce_loss(
        rm.logits(*reward_model._columns(examples)), torch.tensor([e.label for e in examples])
    )
    assert after < 0.1 < before
    as_is, swapped = (rm.score(*reward_model._columns(x)) for x in (EIGHT, wrong_reference))
    labels = torch.tensor([bool(e.label) for e in EIGHT])
    assert ((as_is > swapped) == labels).all(), "the score ignores the reference"


def test_swapped_references_are_negatives_of_correct_texts():
    examples = [
        Example("a", "1", "\\boxed{1}", 1),
        Example("b", "2", "\\boxed{2}", 1),
        Example("c", "3", "x", 0),
    ]
    swapped = swap_references(examples * 20, random.Random(0))
    assert swapped and all(
        e.label == 0 and e.completion in ("\\boxed{1}", "\\boxed{2}") for e in swapped
    )
    assert all(f"\\boxed{{{e.reference}}}" != e.completion for e in swapped)


def test_annotation_marks_what_rule_and_judge_disagree_on(make_rollouts, monkeypatch):
    texts = ["I guess \\boxed{2}", "I guess \\boxed{3}", "I guess \\boxed{2}", "I guess 2"]
    rollouts = make_rollouts(texts, [Problem("1 + 1 = ?", "2")], 4)
    monkeypatch.setattr(annotation, "judge", lambda *a: [1, 0, 0, None])
    examples, agree = annotation.annotate(rollouts, None, None)
    assert [(e.completion, e.label) for e in examples] == list(zip(texts, [1, 0, 1, 0]))
    assert agree == [True, True, False, False]


def test_disagreements_are_not_trained_on_but_measured_on(untrained, monkeypatch):
    """Every second answer of the judge disagrees with the rule."""
    monkeypatch.setattr(
        annotation,
        "judge",
        lambda p, t, rollouts, limit: [
            int(r) ^ (i % 2) for i, r in enumerate(annotation.rewards.rule(rollouts).tolist())
        ],
    )
    cfg = reward_model.RewardModelConfig(
        model=untrained, problems=20, group_size=4, max_new_tokens=4, batch=8
    )
    train, validation, held_out, kept = annotation.make_examples(cfg)
    assert kept == 0.5
    assert (len(held_out), len(validation), len(train)) == (2 * 4, 2 * 4, 16 * 4 // 2)
    questions = [{e.question for e in part} for part in (train, validation, held_out)]
    assert sum(map(len, questions)) == len(set.union(*questions)) == 20


def test_few_problems_still_leave_some_to_train_on(untrained):
    cfg = reward_model.RewardModelConfig(
        model=untrained, problems=10, group_size=2, max_new_tokens=2
    )
    train, validation, held_out, _ = annotation.make_examples(cfg)
    assert (len(held_out), len(validation)) == (2, 2) and len({e.question for e in held_out}) == 1


def test_fit_stops_at_its_target(rm):
    cfg = reward_model.RewardModelConfig(steps=200, batch=32, micro_batch=5, lr=3e-3, target=0.9)
    steps = reward_model.fit(rm, EIGHT, cfg, validation=EIGHT)
    assert steps < 200 and steps % 10 == 0
    assert reward_model.measure(rm, EIGHT)["accuracy"] >= 0.9


def test_the_judge_is_asked_with_the_reference_and_read_by_its_last_word(
    policy, tokenizer, make_rollouts, monkeypatch
):
    problems = [Problem("1 + 1 = ?", "2")]
    rollouts = make_rollouts(["I guess \\boxed{2}"] * 5, problems, 5)
    replies = ["Yes", "no.", "No ... wait: yes, I know", "maybe not", ""]
    asked = []

    def sample(*args, prompts, **kwargs):
        asked.extend(prompts)
        rollouts.texts = replies
        return rollouts

    monkeypatch.setattr(annotation, "sample", sample)
    assert annotation.judge(policy, tokenizer, rollouts) == [1, 0, 1, None, None]
    assert "<completion>I guess \\boxed{2}</completion>" in asked[0]
    assert "<reference_answer>2</reference_answer>" in asked[0]


def test_measure_by_hand(monkeypatch, rm):
    monkeypatch.setattr(rm, "score", lambda *columns: torch.tensor([0.95, 0.95, 0.35, 0.65]))
    examples = [Example("", "", "", label) for label in (1, 0, 0, 0)]
    result = reward_model.measure(rm, examples)
    assert result["accuracy"] == 0.5
    # bins: {.95, .95} off by .9 in sum, {.35} by .35, {.65} by .65
    assert result["calibration_error"] == pytest.approx((0.9 + 0.35 + 0.65) / 4, abs=1e-6)


def test_nothing_to_tell_apart_is_one_clear_line(rm):
    with pytest.raises(InputError, match="4 right and 0 wrong"):
        reward_model.fit(rm, EIGHT[::2], reward_model.RewardModelConfig(steps=1))


def test_any_one_label_classifier_can_take_the_seat(tmp_path, tokenizer):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=1, max_position_embeddings=64,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    score = RewardModel.load(str(tmp_path)).score(*reward_model._columns(EIGHT))
    assert score.shape == (8,) and ((score > 0) & (score < 1)).all()


def test_two_labels_and_missing_folders_are_refused(untrained, tokenizer):
    two = AutoModelForSequenceClassification.from_pretrained(untrained, num_labels=2)
    with pytest.raises(InputError, match="one label"):
        RewardModel(two, tokenizer)
    with pytest.raises(InputError, match="no model at"):
        RewardModel.load("nowhere/at/all")


def test_nothing_held_out_is_not_a_crash(rm):
    result = reward_model.measure(rm, [])
    assert all(value != value for value in result.values())  # nan: not measured
