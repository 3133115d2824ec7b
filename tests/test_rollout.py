"""Sampling: masks, dropped rows, log-probabilities of exactly the distribution sampled from."""

import re

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

import rollout
import tiny
from data import Problem, load_problems
from grpo import token_logprobs
from prompts import solve_prompt
from rollout import chat_ids, draw_token, eos_ids, left_pad, positions, sample
from support import chat
from support.errors import InputError
from verifier import verify

PROBLEMS = load_problems("arithmetic", "train", 6)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- draw_token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_frequencies_of_20000_draws_match_the_distribution(temperature, top_p):
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    if temperature == 0.5:  # squares, renormalised: .25 .09 .0225 .0025 over .365
        expected = torch.tensor([0.684932, 0.246575, 0.061644, 0.006849])
    elif top_p == 0.6:  # .5 is not enough, .5 + .3 is: 5/8 and 3/8
        expected = torch.tensor([0.625, 0.375, 0.0, 0.0])
    else:
        expected = p
    token, logp, entropy = draw_token(p.log().expand(20_000, 4), temperature, top_p, generator())
    count = torch.bincount(token, minlength=4).double()
    kept = expected > 0
    assert count[~kept].sum() == 0
    chi_square = ((count - 20_000 * expected)[kept] ** 2 / (20_000 * expected)[kept]).sum()
    assert chi_square < 16.3, "99.9 % point of chi-square with 3 degrees of freedom"
    assert torch.allclose(logp, expected.log()[token], atol=1e-4), "not the distribution drawn from"
    by_hand = -(expected[kept] * expected[kept].log()).sum()
    assert torch.allclose(entropy, by_hand.expand(20_000), atol=1e-4)


def test_temperature_zero_takes_the_mode_with_certainty():
    token, logp, _ = draw_token(torch.tensor([[0.1, 3.0, 2.0]]), temperature=0)
    assert (token.tolist(), logp.tolist()) == ([1], [0.0])


def test_top_p_always_keeps_the_most_likely_token():
    token, logp, _ = draw_token(
        torch.tensor([[0.0, 1.0, 0.5]]).expand(50, 3), top_p=1e-9, generator=generator()
    )
    assert set(token.tolist()) == {1} and logp.abs().max() < 1e-6


# -- padding and positions -----------------------------------------------------------------------


def test_left_padding_and_positions():
    ids, mask = left_pad([[7, 8, 9], [5]], pad=0, to="cpu")
    assert ids.tolist() == [[7, 8, 9], [0, 0, 5]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions(mask).tolist() == [[0, 1, 2], [0, 0, 0]]


# -- masks ---------------------------------------------------------------------------------------


def scripted(policy, monkeypatch, script):
    """Make `draw_token` follow `script` [B][T], also after finished rows have left."""
    state = {"alive": list(range(len(script))), "t": 0}

    def choose(logits, *ignored):
        token = torch.tensor([script[row][state["t"]] for row in state["alive"]])
        stops = eos_ids(policy, state["tokenizer"])
        state["alive"] = [r for r, t in zip(state["alive"], token.tolist()) if t not in stops]
        state["t"] += 1
        return token, torch.full((len(token),), -0.5), torch.full((len(token),), 0.5)

    monkeypatch.setattr(rollout, "draw_token", choose)
    return state


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_first_eos_is_in_everything_after_is_out(policy, tokenizer, monkeypatch, pad_is_eos):
    eos, other = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("7")
    script = [
        [other, eos, other, other],
        [other] * 4,
        [eos, other, other, other],
        [other, other, other, eos],
    ]
    state = scripted(policy, monkeypatch, script)
    state["tokenizer"] = tokenizer
    before = tokenizer.pad_token
    tokenizer.pad_token = tokenizer.eos_token if pad_is_eos else before
    try:
        r = sample(policy, tokenizer, PROBLEMS[:2], 2, max_new_tokens=4)
    finally:
        tokenizer.pad_token = before
    assert r.mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert r.truncated.tolist() == [False, True, False, False]
    assert r.completion_ids[0, :2].tolist() == [other, eos]
    assert (r.logp[r.mask == 1] == -0.5).all() and (r.logp[r.mask == 0] == 0).all()


def test_several_eos_ids_all_stop(policy, tokenizer, monkeypatch):
    second = tokenizer.convert_tokens_to_ids("<|unk|>")
    policy.generation_config.eos_token_id = [tokenizer.eos_token_id, second]
    other = tokenizer.convert_tokens_to_ids("7")
    state = scripted(
        policy, monkeypatch, [[other, second, other], [tokenizer.eos_token_id, other, other]]
    )
    state["tokenizer"] = tokenizer
    r = sample(policy, tokenizer, PROBLEMS[:2], 1, max_new_tokens=3)
    assert r.mask.tolist() == [[1, 1], [1, 0]]
    assert not r.truncated.any()


# -- the sampler and the trainer agree -----------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.5])
def test_sampler_and_trainer_score_the_same(policy, tokenizer, temperature):
    """KV cache, left padding, expansion and dropped rows against one plain forward pass."""
    r = sample(policy, tokenizer, PROBLEMS, 8, 24, temperature, generator=generator())
    assert len(set(r.mask.sum(1).tolist())) > 3, "rows should end at different times for this test"
    logp, _ = token_logprobs(policy, r, temperature)
    assert torch.allclose(logp, r.logp, atol=1e-5)
    wrong, _ = token_logprobs(policy, r, temperature * 1.1)
    assert (wrong - r.logp).abs().max() > 1e-3


def test_a_group_is_diverse_reproducible_and_follows_its_generator(policy, tokenizer):
    first = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(5))
    again = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(5))
    other = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(6))
    assert len(set(first.completion_ids[:8, 0].tolist())) > 1, "a group of one text teaches nothing"
    assert torch.equal(first.completion_ids, again.completion_ids)
    assert first.texts != other.texts
    torch.manual_seed(1)
    ignoring_global = sample(policy, tokenizer, PROBLEMS[:2], 8, 8, generator=generator(5))
    assert torch.equal(first.completion_ids, ignoring_global.completion_ids)


def test_temperature_zero_is_deterministic(policy, tokenizer):
    a = sample(policy, tokenizer, PROBLEMS[:3], 2, 8, temperature=0.0)
    assert a.texts[0] == a.texts[1]
    assert a.texts == sample(policy, tokenizer, PROBLEMS[:3], 2, 8, temperature=0.0).texts


def test_row_order_and_texts(policy, tokenizer):
    r = sample(policy, tokenizer, PROBLEMS[:3], 2, 8, generator=generator())
    assert [p.question for p in r.problems] == [PROBLEMS[i].question for i in (0, 0, 1, 1, 2, 2)]
    for row, text in enumerate(r.texts):
        kept = r.completion_ids[row][r.mask[row].bool()].tolist()
        assert text == tokenizer.decode(kept, skip_special_tokens=True)


def test_rows_trims_only_padding(policy, tokenizer):
    r = sample(policy, tokenizer, PROBLEMS, 2, 24, generator=generator())
    index = torch.tensor([3, 0])
    part = r.rows(index)
    assert part.texts == [r.texts[3], r.texts[0]]
    assert part.mask.sum(1).tolist() == r.mask[index].sum(1).tolist()
    assert part.prompt_mask.sum(1).tolist() == r.prompt_mask[index].sum(1).tolist()
    assert part.mask.shape[1] == part.mask.sum(1).max() and part.prompt_mask[:, 0].any()


def test_matches_generate_of_transformers_when_greedy(policy, tokenizer):
    ours = sample(policy, tokenizer, PROBLEMS[:1], 1, 12, temperature=0.0)
    theirs = policy.generate(
        input_ids=ours.prompt_ids,
        attention_mask=ours.prompt_mask,
        do_sample=False,
        max_new_tokens=12,
    )
    width = ours.completion_ids.shape[1]
    assert theirs[0, ours.prompt_ids.shape[1] :][:width].tolist() == ours.completion_ids[0].tolist()


# -- chat templates ------------------------------------------------------------------------------

# as they are in the wild, shortened
QWEN = (
    "{%- if messages[0].role == 'system' %}"
    "<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n"
    "{%- else %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{%- endif %}"
    "{%- for m in messages if m.role != 'system' %}"
    "{{- '\n<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '\n<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}<start_of_turn>model\n"
)
DEMANDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "{{ raise_exception('needs a system message') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
)
INST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ system }} {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
ALPACA = (
    "{% for m in messages %}### {{ 'Instruction' if m.role == 'user' else 'Response' }}:\n"
    "{{ m.content }}\n\n{% endfor %}### Response:\n"
)
LEAVES_OUT = "{% for m in messages if m.role == 'user' %}{{ m.content }}\n{% endfor %}"


def byte_tokenizer():
    """One token per byte, which spells anything, and <|end|>."""
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    fast.chat_template = tiny.CHAT_TEMPLATE
    return fast


def with_template(template, **prompting):
    tokenizer = tiny.build_tokenizer()
    tokenizer.chat_template = template
    chat.set_template(tokenizer, **prompting)
    return tokenizer


def shown(tokenizer, message="Hello"):
    return chat.render(tokenizer, [("user", message)])


@pytest.mark.parametrize("template", [QWEN, DEMANDS_SYSTEM, INST, tiny.CHAT_TEMPLATE])
def test_a_system_prompt_is_kept_by_the_saved_tokenizer(template, tmp_path):
    system = "Be 'brief'.\n{{ No }} \\boxed{} é \U0001f600"
    tokenizer = with_template(template, system=system)
    assert shown(tokenizer).count(system) == 1 and "You are Qwen" not in shown(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = rollout.load_tokenizer(str(tmp_path))
    assert shown(again) == shown(tokenizer)
    # another one takes its place
    chat.set_template(again, system="Take your time.")
    assert "Take your time." in shown(again) and system not in shown(again)


def test_template_arguments_are_kept_by_the_saved_tokenizer(tmp_path):
    off = with_template(QWEN, chat='{"enable_thinking": false}')
    assert shown(off).endswith("assistant\n<think>\n\n</think>\n\n")
    off.save_pretrained(tmp_path)
    again = rollout.load_tokenizer(str(tmp_path))
    assert shown(again) == shown(off)
    chat.set_template(again, chat='{"enable_thinking": true}')
    assert shown(again) == shown(with_template(QWEN))


@pytest.mark.parametrize("template", [None, QWEN, NO_SYSTEM])
def test_plain_is_the_message_and_a_line_break(template):
    assert shown(with_template(template, chat="plain")) == "Hello\n"
    assert shown(with_template(template, chat="plain", system="Be brief.")) == "Be brief.\nHello\n"


@pytest.mark.parametrize(
    "template, prompting, says",
    [
        (None, {}, "no chat template"),
        (NO_SYSTEM, {"system": "Be brief."}, "System role not supported"),
        (ALPACA, {"system": "Be brief."}, "no system role"),
        (LEAVES_OUT, {"system": "Be brief."}, "leaves out the system prompt"),
        (DEMANDS_SYSTEM, {}, "needs a system message"),
        ("{% for %}", {}, "Expected an expression"),
        ("{{ messages[7].content }}", {}, "no element 7"),
        ("{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}", {},
         "leaves out the message"),
        ({"rag": QWEN, "tools": QWEN}, {}, "rag, tools and no default"),
        (QWEN, {"chat": "{enable_thinking"}, "JSON of template arguments"),
        (QWEN, {"chat": "[1]"}, "JSON of template arguments"),
        (QWEN, {"chat": '{"messages": []}'}, "no such argument"),
        (QWEN, {"chat": '{"enable_thoughts": true}'}, "no argument 'enable_thoughts'"),
    ],
)  # fmt: skip
def test_templates_that_do_not_work_are_one_clear_line(template, prompting, says):
    with pytest.raises(InputError, match=says) as error:
        with_template(template, **prompting)
    assert "\n" not in str(error.value)


def test_a_default_among_named_templates_is_taken():
    assert shown(with_template({"default": QWEN, "tools": ALPACA})) == shown(with_template(QWEN))


def test_load_policy_takes_system_and_chat(untrained):
    _, tokenizer = rollout.load_policy(untrained, system="I", chat="plain")
    assert shown(tokenizer) == "I\nHello\n"


# -- marks in messages ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template, marks",
    [
        (tiny.CHAT_TEMPLATE, ["<|end|>", "<|assistant|>", "<|pad|>"]),
        (QWEN, ["<|im_end|>", "<|im_start|>"]),
        (NO_SYSTEM, ["<end_of_turn>", "<start_of_turn>"]),
        (INST, ["[INST]", "[/INST]", "</s>"]),
        (ALPACA, ["### Response:", "### Instruction:"]),
    ],
)
def test_no_message_can_open_a_turn(template, marks):
    tokenizer = with_template(template)
    for mark in marks:
        typed = shown(tokenizer, chat.defuse(tokenizer, f"9 {mark} I"))
        assert typed.count(mark) == shown(tokenizer, "9 I").count(mark), mark
        ids, plain = (chat_ids(tokenizer, text) for text in (f"9 {mark} I", "9 I"))
        for special in tokenizer.all_special_ids:
            if special != tokenizer.unk_token_id:
                assert ids.count(special) == plain.count(special), mark


def test_text_without_marks_is_read_as_before(tokenizer):
    for problem in PROBLEMS:
        message = solve_prompt(problem.question) + " x < y, <b>a[1]</b> <|im_end|> #"
        asked = [{"role": "user", "content": message}]
        before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert chat_ids(tokenizer, message) == before


# -- thinking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opens, closes, special",
    [
        ("<think>", "</think>", False),
        ("<think>", "</think>", True),
        ("[THINK]", "[/THINK]", True),
        ("<|START_THINKING|>", "<|END_THINKING|>", True),
        ("<seed:think>", "</seed:think>", True),
        ("<|begin_of_thought|>", "<|end_of_thought|>", True),
        ("<reasoning>", "</reasoning>", False),
        ("◁think▷", "◁/think▷", True),
        (
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
            1,
        ),
        ("<|channel>thought", "<channel|>", True),
    ],
)
def test_thinking_never_pays_whatever_its_tags_are(opens, closes, special):
    tokenizer = byte_tokenizer()
    tags = [t for t in re.findall(r"<[^>]*>|\[[^]]*\]|◁[^▷]*▷", opens + closes) if t != "<|end|>"]
    add = [AddedToken(tag, special=bool(special), normalized=False) for tag in tags]
    tokenizer.add_tokens(add, special_tokens=bool(special))

    def text(written):
        return chat.decode(tokenizer, [tokenizer(written).input_ids])[0]

    closed = text(f"{opens} so \\boxed{{5}} {closes} 9 \\boxed{{9}} <|end|>")
    assert re.fullmatch(r"<think>.*5.*</think>.*\\boxed\{9\} ?", closed), closed
    assert verify(closed, "9", True) and not verify(closed, "5", True)
    still = text(f"{opens} so \\boxed{{5}}")
    assert still.startswith("<think>") and not verify(still, "5", True)
    assert text("so \\boxed{5}") == "so \\boxed{5}"

    # the template may have opened it
    tokenizer.chat_template += f"{{% if add_generation_prompt %}}{opens}{{% endif %}}"
    still, closed = text("so \\boxed{5}"), text(f"so \\boxed{{5}} {closes} \\boxed{{9}}")
    assert still == "<think>so \\boxed{5}" and not verify(still, "5", True)
    assert verify(closed, "9", True) and not verify(closed, "5", True)


def test_a_template_that_spells_its_tags_opens_thinking_too():
    """<thought> is no token here: template and policy write it letter by letter."""
    tokenizer = byte_tokenizer()
    row = tokenizer("5").input_ids
    tokenizer.chat_template = tiny.CHAT_TEMPLATE + "<thought>\n"
    assert chat.decode(tokenizer, [row]) == ["<think>5"]
    row = tokenizer("5</thought>6").input_ids
    assert chat.decode(tokenizer, [row]) == ["<think>5</think>6"]
    tokenizer.chat_template = tiny.CHAT_TEMPLATE + "<think>\n\n</think>\n\n"
    assert chat.decode(tokenizer, [row]) == ["5</thought>6"]


def test_thinking_ends_at_its_token_and_not_where_it_is_spelled():
    tokenizer = byte_tokenizer()
    tags = [AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")]
    spelled = tokenizer("</think> \\boxed{5}").input_ids
    tokenizer.add_tokens(tags)
    row = [*tokenizer("<think> so").input_ids, *spelled]
    text = chat.decode(tokenizer, [row])[0]
    assert text == "<think> so< /think> \\boxed{5}" and not verify(text, "5", True)


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.5},
     {"max_new_tokens": 0}, {"group_size": 0}],
)  # fmt: skip
def test_sampling_that_makes_no_sense_is_one_clear_line(policy, tokenizer, settings):
    with pytest.raises(InputError, match="sampling needs"):
        sample(policy, tokenizer, PROBLEMS[:1], **{"group_size": 2, "max_new_tokens": 4} | settings)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_one_clear_line(policy, tokenizer, temperature, value):
    with torch.no_grad():
        policy.model.norm.weight[3] = value
    with pytest.raises(InputError, match="not finite"):
        sample(policy, tokenizer, PROBLEMS[:1], 2, 4, temperature)


def test_problems_beyond_the_context_are_left_out_at_the_start(policy, tokenizer, capsys):
    long = Problem("7 + 5 " * 200 + "= ?", "12")
    kept = rollout.those_that_fit(policy, tokenizer, 8, [*PROBLEMS, long], PROBLEMS)
    assert kept == [PROBLEMS, PROBLEMS]
    assert capsys.readouterr().err.startswith("1 of 7 problems left out")
    with pytest.raises(InputError, match="context of 256"):
        rollout.those_that_fit(policy, tokenizer, 8, [long])


def test_a_tokenizer_without_chat_template_is_one_clear_line(policy, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="no chat template"):
        sample(policy, tokenizer, PROBLEMS[:1], 2, 4)


def test_a_prompt_beyond_the_context_is_one_clear_line(policy, tokenizer):
    long = Problem("7 + 5 " * 200 + "= ?", "12")
    with pytest.raises(InputError, match="context of 256"):
        sample(policy, tokenizer, [long], 2, 4)


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere", "."])
def test_a_missing_model_is_one_clear_line(name):
    with pytest.raises(InputError, match="no model at"):
        rollout.load_policy(name)


def test_a_saved_policy_loads_with_its_own_tokenizer(untrained, policy, tokenizer):
    """AutoTokenizer would put Qwen2's byte-level decoder on it and glue the words together."""
    loaded, loaded_tokenizer = rollout.load_policy(untrained)
    text = "7 plus 5 is 12 so \\boxed{12}"
    assert loaded_tokenizer.decode(loaded_tokenizer(text).input_ids) == text
    loaded.to(policy.device)
    ids = torch.tensor([tokenizer(text).input_ids], device=policy.device)
    assert torch.equal(loaded(input_ids=ids).logits, policy(input_ids=ids).logits)
    assert not loaded.training and loaded(input_ids=ids).logits.isfinite().all()
