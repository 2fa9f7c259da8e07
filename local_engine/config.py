"""A checkpoint's `config.json`, read into the numbers that the decoder is built from.

Both spellings are read: transformers 4 wrote `rope_theta` and `rope_scaling`, transformers 5 writes `rope_parameters`.
A field that changes the mathematics is either honoured or refused; none is passed over in silence. What a family leaves
out of the file has the value that transformers gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch

from lcdoc.local_engine.errors import ModelFilesError
from lcdoc.local_engine.json_files import Fields, read_json
from lcdoc.local_engine.rope_scaling import RopeScaling, read_rope
from lcdoc.local_engine.weights import Checkpoint


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder of the Llama family."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope: RopeScaling
    rotary_dim: int
    """How many of a head's first dimensions are rotated; even."""
    context_window: int
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    tied_embeddings: bool
    windows: tuple[int | None, ...]
    """For each layer, how many tokens a query sees, its own included; None: all."""
    rotates: tuple[bool, ...]
    """Whether a layer rotates its queries and keys."""
    eos_ids: tuple[int, ...]
    """As far as this file knows them; `Tokenizer.eos_ids` has them all."""
    bos_id: int | None
    dtype: torch.dtype
    """What the checkpoint's weights are stored in."""

    @property
    def groups(self) -> int:
        """Query heads that share one key-value head."""
        return self.heads // self.kv_heads

    @property
    def fused_projections(self) -> bool:
        """Whether q, k, v come as one `qkv_proj`, and gate and up as one `gate_up_proj`."""
        return self.architecture == "Phi3ForCausalLM"

    def cache_bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes of keys and values that one token takes over all layers, at full attention."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Family:
    """What sets one architecture apart, besides the numbers in its file."""

    model_type: str
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tied_embeddings: bool = False
    head_dim: int | None = None
    kv_heads_default: bool = False
    """Whether a file without `num_key_value_heads` means as many as there are heads."""
    qkv_bias: bool = False
    attention_bias: bool = False
    """Whether `attention_bias` is read: it adds one to q, k, v and o alike."""
    mlp_bias: bool = False
    """Whether `mlp_bias` is read."""
    qk_norm: bool = False
    window: Literal["none", "all layers", "by layer"] = "none"
    default_window: int | None = None
    """The window of a file that does not name one; one that says null has none."""
    skips_rotation: bool = False


_FAMILIES: Final[Mapping[str, _Family]] = {
    "LlamaForCausalLM": _Family("llama", kv_heads_default=True, attention_bias=True, mlp_bias=True),
    "MistralForCausalLM": _Family("mistral", window="all layers", default_window=4096),
    "Qwen2ForCausalLM": _Family("qwen2", qkv_bias=True, window="by layer", default_window=4096),
    "Qwen3ForCausalLM": _Family(
        "qwen3", head_dim=128, attention_bias=True, qk_norm=True, window="by layer", default_window=4096
    ),
    "SmolLM3ForCausalLM": _Family(
        "smollm3",
        rope_theta=2_000_000.0,
        tied_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        window="by layer",
        skips_rotation=True,
    ),
    "Phi3ForCausalLM": _Family("phi3", rms_norm_eps=1e-5, kv_heads_default=True, window="all layers"),
}
_ACTIVATIONS: Final = frozenset({"silu", "swish"})
_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def read_config(folder: Path) -> ModelConfig:
    """What `config.json` in a checkpoint's folder says.

    Raises UnsupportedModelError for a model that the engine does not run, and ModelFilesError for a file that is
    missing or damaged.
    """
    path = folder / "config.json"
    fields = Fields(path, read_json(path))
    architecture, family = _family(fields)
    _refuse_what_is_not_done(fields, architecture, family)

    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    vocab_size, kv_heads = fields.size("vocab_size"), _kv_heads(fields, family, heads)
    head_dim = _head_dim(fields, family, hidden, heads)
    rotates = _rotates(fields, family, fields.size("num_hidden_layers"))
    context = fields.size("max_position_embeddings")
    rope_theta, rope, rotary_dim = read_rope(
        fields,
        default_theta=family.rope_theta,
        context=context,
        head_dim=head_dim,
        phi3=family.model_type == "phi3",
    )
    attention_bias = family.attention_bias and fields.flag("attention_bias", False)
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=fields.size("intermediate_size"),
        layers=len(rotates),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        rms_norm_eps=fields.number("rms_norm_eps", family.rms_norm_eps),
        rope_theta=rope_theta,
        rope=rope,
        rotary_dim=rotary_dim,
        context_window=_context_window(fields, context, rope),
        qkv_bias=family.qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family.mlp_bias and fields.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        tied_embeddings=fields.flag("tie_word_embeddings", family.tied_embeddings),
        windows=_windows(fields, architecture, family, rotates),
        rotates=rotates,
        # Ids beyond the vocabulary stand for no token; small copies of large models keep them.
        eos_ids=tuple(token for token in fields.token_ids("eos_token_id") if token < vocab_size),
        bos_id=next((token for token in fields.token_ids("bos_token_id") if token < vocab_size), None),
        dtype=_dtype(fields),
    )


def _family(fields: Fields) -> tuple[str, _Family]:
    named = fields.fields.get("architectures")
    if not named:
        model_type = fields.fields.get("model_type")
        named = [name for name, family in _FAMILIES.items() if family.model_type == model_type] or [model_type]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise fields.wrong("architectures", "a list with the architecture's name")
    architecture: str = named[0]
    if architecture not in _FAMILIES:
        raise fields.refused(f"{architecture} models are not run", f"choose one of {', '.join(_FAMILIES)}")
    return architecture, _FAMILIES[architecture]


def _refuse_what_is_not_done(fields: Fields, architecture: str, family: _Family) -> None:
    """Fields that change the mathematics in ways that the decoder has no code for."""
    activation = fields.fields.get("hidden_act") or "silu"
    if activation not in _ACTIVATIONS:
        raise fields.refused(f"hidden_act is {activation}", "models with silu are run")
    for name in ("quantization_config", "compression_config"):
        stored = fields.fields.get(name)
        if stored:
            method = stored.get("quant_method") if isinstance(stored, dict) else None
            raise fields.refused(
                f"the weights are stored quantized ({method or name})",
                "take the model's unquantized safetensors and let the engine quantize them (int8 or int4)",
            )
    # Qwen2 has its bias whatever this field says, and Phi-3 never.
    for name, read in (("attention_bias", family.attention_bias or family.qkv_bias), ("mlp_bias", family.mlp_bias)):
        if not read and fields.flag(name, False):
            raise fields.refused(f"{name} is true, and {architecture} has no such bias", "correct the file")
    if family.window == "none" and fields.has("sliding_window"):
        raise fields.refused(
            f"sliding_window is {fields.fields['sliding_window']}, and {architecture} has none",
            "set it to null if the model attends to everything, else name its real architecture",
        )


def _kv_heads(fields: Fields, family: _Family, heads: int) -> int:
    null = "num_key_value_heads" in fields.fields
    kv_heads = fields.size("num_key_value_heads", heads if family.kv_heads_default or null else None)
    if heads % kv_heads:
        raise ModelFilesError(
            f"{fields.path}: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}: "
            "correct the file"
        )
    return kv_heads


def _head_dim(fields: Fields, family: _Family, hidden: int, heads: int) -> int:
    if "head_dim" not in fields.fields and family.head_dim is not None:
        return family.head_dim
    if not fields.has("head_dim") and hidden % heads:
        raise ModelFilesError(
            f"{fields.path}: hidden_size {hidden} is no multiple of num_attention_heads {heads}: correct the file"
        )
    return fields.size("head_dim", hidden // heads)


def _rotates(fields: Fields, family: _Family, layers: int) -> tuple[bool, ...]:
    if not family.skips_rotation:
        return (True,) * layers
    if not fields.has("no_rope_layers"):
        interval = fields.size("no_rope_layer_interval", 4)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    # The name says the opposite of what it holds: 1 stands for a layer that rotates.
    stated = fields.fields["no_rope_layers"]
    if not isinstance(stated, list) or len(stated) < layers or any(value not in {0, 1} for value in stated):
        raise fields.wrong("no_rope_layers", f"a list of {layers} zeros and ones")
    return tuple(bool(value) for value in stated[:layers])


def _windows(fields: Fields, architecture: str, family: _Family, rotates: tuple[bool, ...]) -> tuple[int | None, ...]:
    layers = len(rotates)
    if family.window == "none":
        return (None,) * layers
    by_layer = family.window == "by layer"
    window = family.default_window if "sliding_window" not in fields.fields else None
    if fields.has("sliding_window"):
        window = fields.size("sliding_window")
    if by_layer and not fields.flag("use_sliding_window", False):
        window = None
    if fields.has("layer_types"):
        return _stated_windows(fields, architecture, layers, window, by_layer)
    if not by_layer:
        return (window,) * layers
    if family.skips_rotation:
        return tuple(None if rotating else window for rotating in rotates)
    full_layers = fields.count("max_window_layers", 28)
    return tuple(window if layer >= full_layers else None for layer in range(layers))


def _stated_windows(
    fields: Fields, architecture: str, layers: int, window: int | None, by_layer: bool
) -> tuple[int | None, ...]:
    """The windows where the file names each layer's type."""
    types = fields.fields["layer_types"]
    if not isinstance(types, list) or len(types) != layers:
        raise fields.wrong("layer_types", f"a list of {layers} names")
    if unknown := set(map(str, types)) - {"full_attention", "sliding_attention"}:
        raise fields.refused(
            f"layer_types has {', '.join(sorted(unknown))}", "models of full and sliding layers are run"
        )
    if window is None and "sliding_attention" in types:
        raise ModelFilesError(
            f"{fields.path}: layer_types has sliding layers, and sliding_window and use_sliding_window set no window: "
            "correct the file"
        )
    windows = tuple(window if each == "sliding_attention" else None for each in types)
    if not by_layer and windows != (window,) * layers:
        raise fields.refused(f"layer_types mixes windows, which {architecture} cannot", "correct the file")
    return windows


def _context_window(fields: Fields, context: int, rope: RopeScaling) -> int:
    """How many tokens the model is made for.

    By Hugging Face's convention `max_position_embeddings` stays at the window of pretraining where a linear, dynamic or
    yarn scaling stretches it; a file that gives the stretched one names the other in the scaling.
    """
    if fields.has("max_sequence_length"):
        return max(context, fields.size("max_sequence_length"))
    if rope.kind in {"linear", "dynamic", "yarn"}:
        return max(context, int(rope.original_context * rope.factor))
    return context


def _dtype(fields: Fields) -> torch.dtype:
    stated = fields.fields.get("dtype") or fields.fields.get("torch_dtype")
    if stated is None or stated == "auto":
        return Checkpoint(fields.path.parent).dtype
    dtype = _DTYPES.get(str(stated).removeprefix("torch."))
    if dtype is None:
        raise fields.refused(f"the weights are {stated}", f"models in {', '.join(_DTYPES)} are run")
    return dtype
