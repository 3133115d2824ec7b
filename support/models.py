"""Loading what others saved: whatever is wrong with a folder ends in one line, not a traceback.

`load_model` asks the library what it could not find, so that no weight is quietly drawn at random;
`classifier` gives any family of causal LMs a head with one label.
"""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    logging,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from support.errors import InputError

CLASSIFIER = "ForSequenceClassification"
# what wraps a model while it trains, by the prefix that it leaves on the names of its weights
WRAPPERS = {
    "_fsdp_wrapped_module.": "FSDP",
    "base_model.model.": "PEFT",
    "_orig_mod.": "torch.compile",
    "module.": "DDP",
}


_loading = threading.Lock()


@contextlib.contextmanager
def one_line(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is an InputError "what: why".

    NOTE: a broad except on purpose. A broken file, an unknown architecture, a missing package: a
    loader of foreign folders may raise anything.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else ""
        kind = "" if " " in why else f"{type(error).__name__} "  # KeyError says only 'key'
        raise InputError(f"{what}: {kind}{why}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The library's tables of missing weights stay away: what they say is said in one line here."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --------------------------------------------------------------------------------------------------
# Folders


def check_model_name(name: str) -> None:
    """Raise InputError for what is neither a model folder nor has a hub name's form, owner/name."""
    folder = Path(name)
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{name!r} holds a PEFT adapter: merge it into its base model, and save that"
        )
    local = folder.exists() or folder.parent.exists()  # "runs/gone" is no hub name
    if not (folder / "config.json").is_file() and (local or name.count("/") != 1):
        raise InputError(f"no model at {name!r}: give a folder or a hub name, or run `make demo`")


def load_tokenizer(name: str):
    """The tokenizer exactly as its folder declares it.

    NOTE: AutoTokenizer (transformers 5) puts Qwen2's own pre-tokenizer and decoder on every folder
    with a Qwen2 model, whatever its tokenizer.json says. Who declares the generic class means it.
    """
    with one_line(f"cannot load the tokenizer of {name!r}"):
        declared = get_tokenizer_config(name).get("tokenizer_class")
        generic = declared in ("TokenizersBackend", "PreTrainedTokenizerFast")
        kind = PreTrainedTokenizerFast if generic else AutoTokenizer
        return kind.from_pretrained(name, trust_remote_code=False)


def load_model(loader, name: str, **settings) -> tuple[PreTrainedModel, set[str]]:
    """(model, names of the weights that are not in the folder), the latter only those of a head.

    loader: a class with from_pretrained. Raises InputError where other weights are missing, have
    another shape or another name: they would be random numbers.
    """
    check_storage(name)
    # the library holds global state while it loads: one thread at a time
    with one_line(f"cannot load {name!r}"), quiet(), _loading:
        model, info = loader.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False,
            **settings,
        )  # fmt: skip
    missing, unexpected = set(info["missing_keys"]), sorted(info["unexpected_keys"])
    if info["mismatched_keys"]:
        key, saved, wanted = sorted(info["mismatched_keys"])[0]
        shapes = f"{list(saved)} in the file, {list(wanted)} by config.json"
        raise InputError(f"cannot load {name!r}: the weight {key!r} is {shapes}")
    if any("lora_" in key for key in unexpected):
        raise InputError(f"{name!r} holds LoRA weights: merge them into the model, and save that")
    backbone = {key for key in missing if key.startswith(model.base_model_prefix + ".")}
    head_may_be_new = type(model).__name__.endswith(CLASSIFIER)
    if backbone or (missing and not head_may_be_new):
        raise InputError(f"cannot load {name!r}: {_why_missing(missing, unexpected)}")
    known = {_layer(key) for key in model.state_dict()}
    # layers that predict several tokens at once are meant to be left out (DeepSeek-V3)
    ahead = getattr(model.config.get_text_config(), "num_nextn_predict_layers", 0)
    if not ahead and any(_layer(key) in known for key in unexpected):
        raise InputError(f"cannot load {name!r}: more layers in its weights than in config.json")
    return model, missing


def check_storage(name: str) -> None:
    """Raise InputError where a folder's weights are stored quantised: loaded as they are, such
    numbers without their scales are no model."""
    with one_line(f"cannot load {name!r}"):
        for file in sorted(Path(name).glob("*.safetensors")):
            with safe_open(file, "pt") as weights:
                for key in weights.keys():  # noqa: SIM118, it is no dict
                    kind = weights.get_slice(key).get_dtype()
                    if kind in ("I8", "U8", "I16", "I32") or kind.startswith("F8"):
                        raise InputError(
                            f"cannot load {name!r}: {key!r} is stored as {kind}, "
                            "quantised: save the model as bfloat16 or float32"
                        )


def _layer(key: str) -> str:
    """The name of a weight without the number of its layer."""
    return re.sub(r"\d+", "N", key)


def _why_missing(missing: set[str], unexpected: list[str]) -> str:
    count = f"{len(missing)} weights are missing, among them {min(missing)!r}"
    for prefix, wrapper in WRAPPERS.items():
        if any(prefix in key for key in unexpected):
            return (
                f"{count}: its names carry {prefix!r}, so save the model from inside its {wrapper}"
            )
    if unexpected:
        return f"{count}, and {unexpected[0]!r} is not expected: were they renamed?"
    return f"{count}: save the whole model again"


def load_policy_weights(loader, name: str, dtype) -> PreTrainedModel:
    """A causal LM, all of whose weights are in the folder, on the CPU."""
    for kind in read_config(name).architectures or []:
        if re.search("Classification|Reward", kind):
            raise InputError(f"{name!r} is a {kind}: it scores texts, but writes none")
    settings = Path(name, "generation_config.json")  # broken, the library would do without it
    with one_line(f"cannot read {str(settings)!r}"):
        if settings.is_file():
            json.loads(settings.read_text(encoding="utf-8"))
    return load_model(loader, name, dtype=dtype)[0]


def read_config(name: str):
    """The config of a folder or hub name. Raises InputError."""
    check_model_name(name)
    with one_line(f"cannot load {name!r}"):
        return AutoConfig.from_pretrained(name, trust_remote_code=False)


def is_classifier(config) -> bool:
    """Whether the config says that its folder holds a sequence classifier, head and all."""
    return any(kind.endswith(CLASSIFIER) for kind in config.architectures or [])


# --------------------------------------------------------------------------------------------------
# One-label classifiers


def load_classifier(name: str) -> tuple[PreTrainedModel, bool]:
    """(classifier with one label, whether its head is new) of a classifier or a causal LM.

    A classifier is taken as it is; of a causal LM the backbone is, and the head drawn with torch's
    global seed. Raises InputError for other than one label, and for a classifier without its head.
    """
    config = read_config(name)
    existing = is_classifier(config)
    with one_line(f"cannot load reward model {name!r}"):
        loader = classifier(config)
    if existing and config.num_labels != 1:
        raise InputError(f"{name!r}: a reward model has one label, not {config.num_labels}")
    model, missing = load_model(loader, name, num_labels=1, dtype=torch.float32)
    if missing and existing:
        raise InputError(f"cannot load reward model {name!r}: its head {min(missing)!r} is missing")
    return model, bool(missing)


def classifier(config):
    """What loads a sequence classifier of this family: the library's own class, or one made here.

    Two thirds of the families have none of their own. The one made is a linear head on the family's
    backbone, named as the library would name it, so that it is saved and loaded as any other.
    """
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return AutoModelForSequenceClassification
    backbone = MODEL_MAPPING[type(config)]
    # e.g. GraniteModel < GranitePreTrainedModel < PreTrainedModel
    family = next(
        kind
        for kind in backbone.__mro__[1:]
        if issubclass(kind, PreTrainedModel) and kind is not PreTrainedModel
    )
    name = backbone.__name__.removesuffix("Model") + CLASSIFIER
    members = {
        "config_class": type(config),
        "base_model_prefix": family.base_model_prefix,
        # NOTE: in a class of another module the library leaves buffers that are in no file as they
        # are, which with Falcon-H1 is anything
        "__module__": family.__module__,
    }
    return type(name, (GenericForSequenceClassification, family), members)


# --------------------------------------------------------------------------------------------------
# What a model can read


def context_length(config) -> int | None:
    """Tokens of prompt and completion together; None where the family has no limit."""
    text = config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)


def readable_length(model) -> int | None:
    """Tokens of an input; None where the family has no limit.

    NOTE: positions of RoBERTa's kind begin behind the pad id, so two of them are not there.
    """
    tables = [m for n, m in model.named_modules() if n.endswith("position_embeddings")]
    for table in tables:
        if getattr(table, "padding_idx", None) is not None:
            return table.num_embeddings - table.padding_idx - 1
    return context_length(model.config)


def eos_ids(policy, tokenizer) -> list[int]:
    """Every id that ends a completion; instruct models often have two, <|im_end|> and another."""
    declared = policy.generation_config.eos_token_id
    declared = declared if isinstance(declared, list) else [declared]
    ids = {i for i in (*declared, tokenizer.eos_token_id) if i is not None}
    if not ids or not all(isinstance(i, int) for i in ids):
        raise InputError("no EOS token: give the tokenizer an eos_token, or completions never end")
    return sorted(ids)


def pad_id(model, tokenizer) -> int:
    """An id for padding, inside the embedding. Masks come from positions, so any would do."""
    rows = model.get_input_embeddings().weight.shape[0]
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(i for i in known if i is not None and i < rows)


def check_prompts(model, rows: list[list[int]], max_new_tokens: int) -> None:
    """Raise InputError where the longest prompt and its completion exceed the model's context."""
    longest, context = max(map(len, rows)), context_length(model.config)
    if context is not None and longest + max_new_tokens > context:
        raise InputError(
            f"a prompt of {longest} tokens and max_new_tokens {max_new_tokens} exceed the "
            f"model's context of {context}: lower max_new_tokens or leave out long problems"
        )
    known, highest = model.get_input_embeddings().weight.shape[0], max(map(max, rows))
    if highest >= known:
        raise InputError(
            f"the tokenizer has the id {highest}, the model an embedding of {known} rows: they do "
            "not belong together"
        )
