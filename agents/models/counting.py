"""Counting a model's tokens: with its own tokenizer where that is on this machine, else by an estimate that errs high.

Nothing is ever downloaded. How high the estimate errs is in `lcdoc.agents.models.high_estimate`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.high_estimate import high_estimate
from lcdoc.agents.models.model import ModelSpec

if TYPE_CHECKING:
    import tiktoken

__all__ = ["counter_for", "high_estimate"]

_log = logging.getLogger(__name__)

Counter = Callable[[str], int]

_VOCABULARIES: Final = "https://openaipublic.blob.core.windows.net/encodings/"
_FILES: Final = {
    "cl100k_base": ("cl100k_base.tiktoken", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"),
    "o200k_base": ("o200k_base.tiktoken", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
    "o200k_harmony": ("o200k_base.tiktoken", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"),
}
"""Encodings of chat models: the file, and its SHA-256 without which tiktoken would fetch it anew."""
_SLICE_CHARACTERS: Final = 50_000
"""Texts are encoded in slices: a tokenizer's time and stack may grow with the square of an unbroken run. Each cut adds
a token at most."""


def counter_for(spec: ModelSpec, *, tokenizer: Path | None = None) -> Counter:
    """What counts the tokens of texts for this model.

    `tokenizer`, a tokenizer.json that the user names, goes before all. Else tiktoken for the models that it knows, if
    its vocabulary file is in its cache; the `tokenizer.json` of a model that is named by its folder here; else
    `high_estimate`. A tokenizer that does not load is logged and not used, but for the named one: ModelConfigError.
    """
    if tokenizer is not None:
        try:
            return _file_counter(tokenizer)
        except ValueError as error:
            raise ModelConfigError(
                spec.name,
                f"its tokenizer {tokenizer} cannot be read ({error})",
                "name a tokenizer.json as Hugging Face's tokenizers write it, or take `tokenizer` out",
            ) from error
    model = spec.server.model if spec.server is not None else spec.name
    if (path := _tokenizer_file(model)) is not None:
        try:
            return _file_counter(path)
        except ValueError as error:
            _log.warning("the tokenizer %s cannot be used (%s): tokens are estimated", path, error)
            return high_estimate
    if (name := _encoding_name(model)) is not None and _is_cached(name):
        return _cached_encoding_counter(name) or high_estimate
    return high_estimate


def _tokenizer_file(model: str) -> Path | None:
    """The `tokenizer.json` of a model that is named by its path, as vLLM and llama.cpp name theirs."""
    if not ("/" in model or os.sep in model or model.endswith(".json")):
        return None
    path = Path(model).expanduser()
    try:
        if path.name == "tokenizer.json" and path.is_file():
            return path
        inside = path / "tokenizer.json" if path.is_dir() else path.parent / "tokenizer.json"
        # `org/name` is a name of the hub, not a path, even where a folder of the working directory is called so.
        return inside if path.is_absolute() and path.exists() and inside.is_file() else None
    except OSError:
        return None


@lru_cache(maxsize=8)
def _file_counter(path: Path) -> Counter:
    """Counts with a tokenizer.json. Raises ValueError for a file that is none."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises Exception itself.
        raise ValueError(" ".join(str(error).split())[:200]) from error
    # Both are settings of training, and would make the length of every text the same.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str) -> int:
        return sum(len(tokenizer.encode(part, add_special_tokens=False)) for part in _slices(_encodable(text)))

    return count


def _encoding_name(model: str) -> str | None:
    """tiktoken's encoding for a model of OpenAI's, also as gateways name it (`openai/gpt-4o`)."""
    from tiktoken.model import encoding_name_for_model

    vendor, _, name = model.rpartition("/")
    if vendor not in {"", "openai"}:
        return None
    try:
        encoding = encoding_name_for_model(name)
    except KeyError:
        return None
    return encoding if encoding in _FILES else None


def _is_cached(encoding_name: str) -> bool:
    """Whether the vocabulary is where tiktoken looks for it, whole."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:
        return False  # tiktoken is told to keep no files
    name, expected = _FILES[encoding_name]
    path = Path(folder) / hashlib.sha1((_VOCABULARIES + name).encode(), usedforsecurity=False).hexdigest()
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        return False


@lru_cache(maxsize=4)
def _cached_encoding_counter(encoding_name: str) -> Counter | None:
    import tiktoken

    try:
        return encoding_counter(tiktoken.get_encoding(encoding_name))
    except (ValueError, OSError, KeyError) as error:
        _log.warning("the encoding %s cannot be used (%s): tokens are estimated", encoding_name, error)
        return None


def encoding_counter(encoding: tiktoken.Encoding) -> Counter:
    """Counts with a tiktoken encoding. Names of special tokens in a text are ordinary text."""

    def count(text: str) -> int:
        return sum(len(encoding.encode_ordinary(part)) for part in _slices(text))

    return count


def _slices(text: str) -> list[str]:
    return [text[start : start + _SLICE_CHARACTERS] for start in range(0, len(text), _SLICE_CHARACTERS)]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
