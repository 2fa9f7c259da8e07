"""What `generation_config.json` says: which tokens end an answer, and how the model's makers sample from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcdoc.local_engine.json_files import Fields, read_json


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """How the model's makers sample; None: they do not say."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


def read_generation_defaults(folder: Path) -> GenerationDefaults:
    """The sampling that a checkpoint's folder suggests.

    Where `do_sample` is not true the makers decode greedily, and the values beside it are without effect. Raises
    ModelFilesError for a file that is damaged; one that is missing suggests nothing.
    """
    fields = _fields(folder)
    penalty = fields.optional_number("repetition_penalty")
    if not fields.flag("do_sample", False):
        return GenerationDefaults(repetition_penalty=penalty)
    return GenerationDefaults(
        # Zero, for greedy, is written by some.
        temperature=0.0 if fields.fields.get("temperature") == 0 else fields.optional_number("temperature"),
        top_p=fields.optional_number("top_p"),
        top_k=fields.count("top_k", 0) if fields.has("top_k") else None,
        min_p=0.0 if fields.fields.get("min_p") == 0 else fields.optional_number("min_p"),
        repetition_penalty=penalty,
    )


def stop_ids(folder: Path) -> tuple[int, ...]:
    """The tokens that end an answer, as far as this file knows them. Raises ModelFilesError for a damaged one."""
    return _fields(folder).token_ids("eos_token_id")


def _fields(folder: Path) -> Fields:
    path = folder / "generation_config.json"
    return Fields(path, read_json(path) if path.exists() else {})
