"""How a checkpoint's `config.json` stretches its rotary embedding; `rope.py` has the formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lcdoc.local_engine.json_files import Fields

RopeKind = Literal["default", "linear", "dynamic", "llama3", "yarn", "longrope"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotation frequencies are changed for contexts longer than those of pretraining; see `rope.py`."""

    kind: RopeKind = "default"
    factor: float = 1.0
    original_context: int = 0
    """The window of pretraining, in tokens."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    """One divisor for each frequency, used up to `original_context`."""
    long_factor: tuple[float, ...] = ()
    """The same, used beyond it."""


def read_rope(
    fields: Fields, *, default_theta: float, context: int, head_dim: int, phi3: bool
) -> tuple[float, RopeScaling, int]:
    """The base of the frequencies, their scaling, and how many dimensions of a head are rotated.

    `context` is the file's `max_position_embeddings`. Phi-3 alone rotates parts of heads, and has names of its own.
    Raises UnsupportedModelError and ModelFilesError.
    """
    name = "rope_scaling" if fields.fields.get("rope_scaling") else "rope_parameters"
    stated = fields.fields.get(name) or {}
    if not isinstance(stated, dict):
        raise fields.wrong(name, "an object")
    rope = Fields(fields.path, stated, f"{name}.")
    if any(isinstance(value, dict) for value in stated.values()):
        raise fields.refused(f"{name} differs by layer", "models with one rotary embedding are run")
    if stated.get("mrope_section"):
        raise fields.refused(f"{name} has an mrope_section", "models of text alone are run")
    theta = rope.number("rope_theta", fields.number("rope_theta", default_theta))
    rotary_dim = _rotary_dim(fields, rope, head_dim, phi3)
    kind = stated.get("rope_type") or stated.get("type") or "default"
    if phi3 and kind in {"su", "yarn"}:
        kind = "longrope"
    inside = rope.size("original_max_position_embeddings", context)
    # Phi-3 keeps the window of its pretraining beside the scaling, where it counts before what the scaling says.
    original = fields.size("original_max_position_embeddings", 4096 if phi3 else inside)
    if kind == "linear":
        return theta, RopeScaling("linear", rope.number("factor"), inside), rotary_dim
    if kind == "dynamic" and rotary_dim == 2:
        raise fields.refused("dynamic scaling of 2 dimensions divides by zero", "choose another model")
    return theta, _scaling(kind, rope, context, original, rotary_dim), rotary_dim


def _scaling(kind: object, rope: Fields, context: int, original: int, rotary_dim: int) -> RopeScaling:
    match kind:
        case "default":
            return RopeScaling(original_context=context)
        case "dynamic":
            return RopeScaling("dynamic", rope.number("factor"), context)
        case "llama3":
            low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
            if high <= low:
                raise rope.wrong("high_freq_factor", f"a number above low_freq_factor {low}")
            return RopeScaling("llama3", rope.number("factor"), original, low_freq_factor=low, high_freq_factor=high)
        case "yarn":
            return _yarn(rope, context, original)
        case "longrope":
            return RopeScaling(
                "longrope",
                rope.number("factor", context / original),
                original,
                attention_factor=rope.optional_number("attention_factor"),
                short_factor=rope.numbers("short_factor", rotary_dim // 2),
                long_factor=rope.numbers("long_factor", rotary_dim // 2),
            )
    raise rope.refused(
        f"its rotary embedding is scaled by {kind!r}", "linear, dynamic, llama3, yarn and longrope scaling are run"
    )


def _yarn(rope: Fields, context: int, original: int) -> RopeScaling:
    # Zeros count as left out, as transformers reads them.
    given = {name for name in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim") if rope.fields.get(name)}
    return RopeScaling(
        "yarn",
        rope.number("factor", context / original),
        original,
        beta_fast=rope.number("beta_fast") if "beta_fast" in given else 32.0,
        beta_slow=rope.number("beta_slow") if "beta_slow" in given else 1.0,
        attention_factor=rope.optional_number("attention_factor"),
        mscale=rope.number("mscale") if "mscale" in given else None,
        mscale_all_dim=rope.number("mscale_all_dim") if "mscale_all_dim" in given else None,
        truncate=rope.flag("truncate", True),
    )


def _rotary_dim(fields: Fields, rope: Fields, head_dim: int, phi3: bool) -> int:
    share = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    if share != 1.0 and not phi3:
        raise fields.refused(
            f"partial_rotary_factor is {share}, and models of its kind rotate whole heads", "correct the file"
        )
    rotary_dim = int(head_dim * share)
    if rotary_dim % 2 or not 0 < rotary_dim <= head_dim:
        raise fields.refused(
            f"{rotary_dim} of {head_dim} dimensions of a head are rotated", "models that rotate an even number are run"
        )
    return rotary_dim
