r"""Between a message and the ids that a model reads, and between the ids that it writes and a text.

A system prompt, arguments and the fall-back of base models are written into the chat template
itself, so that a saved policy keeps them and eval, judge and assistant prompt as training did.

What is inside a message must stay text: a question or a completion that spells <|im_end|> would
close its own turn and open the next (`defuse`). What a model thinks must stay recognisable: tags of
thinking are special tokens in many tokenizers, and would vanish with them (`decode`).
"""

import contextlib
import functools
import json
import keyword
import re

from support.errors import InputError
from support.models import context_length, one_line

# --------------------------------------------------------------------------------------------------
# Templates

PLAIN = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
HOW = 'chat is "plain" or JSON of template arguments, as {"enable_thinking": false}'


def set_template(tokenizer, system: str | None = None, chat: str | None = None) -> None:
    """Write system prompt and arguments into the tokenizer's chat template, and try it once.

    chat: None takes the template as it is, "plain" puts the message and a newline in its place,
    other strings are JSON of its arguments. Raises InputError where it does not work as asked.
    """
    name, arguments = tokenizer.name_or_path, _arguments(chat)
    own = template = tokenizer.chat_template
    if chat == "plain":
        begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
        template = ("{{ bos_token }}" if begins else "") + PLAIN
    elif isinstance(template, dict) and "default" in template:
        own = template = template["default"]
    elif isinstance(template, dict):
        raise InputError(
            f"{name!r} has the chat templates {', '.join(template)} and no default: leave the one "
            "wanted in the folder, or give --chat plain"
        )
    elif template is None:
        raise no_template(name)
    for key, value in arguments.items():
        if not re.search(rf"\b{key}\b", template):
            raise InputError(f"the chat template of {name!r} has no argument {key!r}")
        # repr: literals of Python are those of Jinja. +%} keeps a line break that follows
        template = f"{{% set {key} = {key} if {key} is defined else {value!r} +%}}{template}"
    if system is not None and chat != "plain":
        _check_system_role(tokenizer, template, system)
    if system is not None:
        turn = [{"role": "system", "content": system}]
        template = (
            "{% set messages = messages if messages[0]['role'] == 'system' "
            f"else {turn!r} + messages +%}}{template}"
        )
    if template != own:
        tokenizer.chat_template = template
    shown = render(tokenizer, [("user", "Probe")])
    if "Probe" not in shown:
        raise InputError(f"the chat template of {name!r} leaves out the message: --chat plain?")
    if system is not None and system.strip() not in shown:
        raise InputError(f"the chat template of {name!r} leaves out the system prompt: give none")


def _check_system_role(tokenizer, template: str, system: str) -> None:
    """Raise InputError where the template shows a system prompt as what the assistant has said."""
    as_role = {}
    for role in ("system", "assistant", "user"):
        with contextlib.suppress(InputError):
            as_role[role] = render(tokenizer, [(role, system), ("user", "Probe")], template)
    said = as_role.get("system", "")
    if system.strip() in said and said == as_role.get("assistant") != as_role.get("user"):
        raise InputError(
            f"the chat template of {tokenizer.name_or_path!r} has no system role: give no --system"
        )


def no_template(name: str) -> InputError:
    return InputError(
        f"the tokenizer of {name!r} has no chat template: use an instruct model, or --chat plain"
    )


def _arguments(chat: str | None) -> dict:
    """The template arguments that `chat` holds as JSON."""
    if chat in (None, "plain"):
        return {}
    try:
        given = json.loads(chat)
    except (ValueError, RecursionError):
        raise InputError(f"{HOW}; {chat!r} is neither") from None
    if not isinstance(given, dict):
        raise InputError(f"{HOW}; {chat!r} is neither")
    for key in given:
        if not key.isidentifier() or keyword.iskeyword(key) or key in ("messages", "tools"):
            raise InputError(f"{HOW}; {key!r} is no such argument")
    return given


def render(tokenizer, turns: list[tuple[str, str]], template: str | None = None) -> str:
    """The text of a conversation of (role, content), up to where the next answer begins."""
    chat = [{"role": role, "content": content} for role, content in turns]
    with one_line(f"the chat template of {tokenizer.name_or_path!r} fails (--system, --chat)"):
        return tokenizer.apply_chat_template(
            chat, chat_template=template, tokenize=False, add_generation_prompt=True
        )


def chat_ids(tokenizer, message: str) -> list[int]:
    """Token ids of one user message, up to where the assistant's answer begins."""
    if tokenizer.chat_template is None:
        raise no_template(tokenizer.name_or_path)
    chat = [{"role": "user", "content": defuse(tokenizer, message)}]
    with one_line(f"the chat template of {tokenizer.name_or_path!r} fails (--system, --chat)"):
        return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def within_context(policy, tokenizer, messages: list[str], max_new_tokens: int) -> list[bool]:
    """Whether each prompt and its completion are within the model's context."""
    context = context_length(policy.config)
    if context is None:
        return [True] * len(messages)
    room, template = context - max_new_tokens, len(chat_ids(tokenizer, ""))
    # a token holds a byte at least: only what may be too long is read as tokens
    return [
        template + len(message.encode()) <= room or len(chat_ids(tokenizer, message)) <= room
        for message in messages
    ]


# --------------------------------------------------------------------------------------------------
# Marks: what must not come from inside a message

_BRACKETED = re.compile(r"""[<\[][^<>\[\]\s'"]{1,60}[>\]]|◁[^◁▷\s]{1,60}▷""")


def defuse(tokenizer, text: str) -> str:
    """The text with a space after the first character of each mark that it spells.

    Text without marks is returned as it is.
    """
    marks, _ = _template_marks(tokenizer, str(tokenizer.chat_template))
    return marks.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}", text)


@functools.lru_cache(maxsize=16)
def _template_marks(tokenizer, template: str) -> tuple[re.Pattern, str]:
    """(marks, what the template writes after the last message) of a tokenizer.

    Marks are its special tokens, and what its template puts between messages: <|im_end|>, [INST],
    "### Response:". template: only so that a changed one is looked at again.
    """
    between = _between(tokenizer) if tokenizer.chat_template is not None else [""]
    found = {str(t) for t in tokenizer.all_special_tokens}
    found |= {t.content for t in _added(tokenizer).values() if t.special}
    for part in between:
        found |= set(_BRACKETED.findall(part))
        lines = [line.strip() for line in _BRACKETED.sub("\n", part).splitlines()]
        found |= {line for line in lines if len(line) <= 40 and re.search(r"[^\w\s]", line)}
    longest_first = sorted((mark for mark in found if len(mark) > 2), key=len, reverse=True)
    # (?!) matches nothing
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)"), between[-1]


def _between(tokenizer) -> list[str]:
    """What the template puts after each message of a conversation; [""] if it fails."""
    turns = [("user", "Qaprobe"), ("assistant", "Qbprobe"), ("user", "Qcprobe")]
    for probe in (turns, turns[:1]):  # some templates are for one question and no more
        with contextlib.suppress(InputError):
            return re.split("Q[abc]probe", render(tokenizer, probe))[1:] or [""]
    return [""]


def _added(tokenizer) -> dict:
    return getattr(tokenizer, "added_tokens_decoder", {})


# --------------------------------------------------------------------------------------------------
# Thinking: one form in every text, <think>...</think>, which the verifier does not pay

OPEN, CLOSE = "<think>", "</think>"
_THINKING = {"think", "thinking", "thought", "thoughts", "reasoning"}
_NOT = {"no", "not", "off", "budget", "effort"}
# gpt-oss: <|channel|>analysis<|message|>...<|end|>; Gemma 4: <|channel>thought\n...<channel|>
_CHANNEL = ("<|channel|>", "<|message|>", "<|end|>", "<|channel>", "<channel|>")
_CHANNELS = re.compile(
    r"<\|channel\|?>(?!final)(?:[^<]*<\|message\|>)?(.*?)(<\|end\|>|<channel\|>|$)", re.DOTALL
)


def tag(token: str) -> str | None:
    """<think> or </think> for a token that opens or closes thinking by its name, else None.

    >>> tag("[/THINK]"), tag("<|START_THINKING|>"), tag("<|im_end|>"), tag("/no_think")
    ('</think>', '<think>', None, None)
    """
    words = set(re.findall("[a-z]+", token.lower()))
    if token[:1].isalnum() or token[:1] == "/" or not words & _THINKING or words & _NOT:
        return None
    return CLOSE if "/" in token or "end" in words else OPEN


def decode(tokenizer, rows: list[list[int]]) -> list[str]:
    """Completions as texts without special tokens, but with their thinking as <think>...</think>.

    Where the prompt has opened it already, the text begins with <think>.
    """
    tokens, spelled, opened = _thinking(tokenizer, str(tokenizer.chat_template))
    texts = tokenizer.batch_decode(rows, skip_special_tokens=True)
    for i, row in enumerate(rows):
        if tokens and (not tokens.keys().isdisjoint(row) or "think>" in texts[i]):
            texts[i] = _with_thinking(tokenizer, row, tokens, opened)
        elif opened:
            texts[i] = OPEN + texts[i]
        for name in spelled:
            texts[i] = texts[i].replace(name, tag(name))
    return texts


@functools.lru_cache(maxsize=16)
def _thinking(tokenizer, template: str) -> tuple[dict[int, str], list[str], bool]:
    """(id: tag, of added tokens), tags that the template spells, does its prompt open thinking."""
    added = {i: token.content for i, token in _added(tokenizer).items()}
    tokens = {i: tag(text) for i, text in added.items() if tag(text)}
    if {"<|channel|>", "<|channel>"} & set(added.values()):
        tokens |= {i: text for i, text in added.items() if text in _CHANNEL}
    named = {text for text in _BRACKETED.findall(template) if tag(text)}
    named |= {f"{text[0]}/{text[1:]}" for text in named if tag(text) == OPEN}
    spelled = sorted(named - set(added.values()) - {OPEN, CLOSE})
    tail = _template_marks(tokenizer, template)[1]
    tags = [tag(text) for text in _BRACKETED.findall(tail) if tag(text)]
    channel = _CHANNELS.search(tail)
    return tokens, spelled, tags[-1:] == [OPEN] or bool(channel and not channel[2])


def _with_thinking(tokenizer, row: list[int], tokens: dict[int, str], opened: bool) -> str:
    """One completion, piece by piece between the tokens of thinking.

    A tag that ordinary tokens spell is not one: it would end the thinking for the verifier only.
    """
    channels = not set(_CHANNEL).isdisjoint(tokens.values())
    text, start = "", 0
    if opened:
        text = "<|channel|><|message|>" if channels else OPEN
    for end in [i for i, token in enumerate(row) if token in tokens] + [len(row)]:
        piece = tokenizer.decode(row[start:end], skip_special_tokens=True)
        for mark in (OPEN, CLOSE, *_CHANNEL):
            piece = piece.replace(mark, f"{mark[0]} {mark[1:]}")
        text += piece + (tokens[row[end]] if end < len(row) else "")
        start = end + 1
    if not channels:
        return text
    text = _CHANNELS.sub(lambda m: OPEN + m[1] + (CLOSE if m[2] else ""), text)
    text = re.sub(r"(assistant)?<\|channel\|>final[^<]*<\|message\|>", "", text)
    return re.sub("|".join(map(re.escape, _CHANNEL)), "", text)


# --------------------------------------------------------------------------------------------------
# What does not fit


def cut_to_fit(row: list[str], fits) -> list[str]:
    """Question, reference and completion, so much shorter that fits(row).

    First goes the question's middle, then the completion's beginning, and the reference's only if
    nothing else is left: the answer is at the end of both. Raises InputError if all that is not
    enough.
    """
    parts = list(row)
    for i, from_front in ((0, 0.5), (2, 0.0), (1, 0.0)):
        whole, low, high = parts[i], 0, len(parts[i])  # characters that are kept: low fits or is 0
        while low < high:
            kept = (low + high + 1) // 2
            parts[i] = cut(whole, kept, from_front)
            low, high = (kept, high) if fits(parts) else (low, kept - 1)
        parts[i] = cut(whole, low, from_front)
        if fits(parts):
            return parts
    raise InputError("the reward model's context is too short for its own template")


def cut(text: str, kept: int, from_front: float) -> str:
    """`kept` characters of the text, this share of them from its front and the rest from its end.

    >>> cut("abcdefgh", 4, 0.5), cut("abcdefgh", 4, 0.0)
    ('ab ... gh', ' ... efgh')
    """
    front = int(kept * from_front)
    return text if kept >= len(text) else f"{text[:front]} ... {text[len(text) - kept + front :]}"
