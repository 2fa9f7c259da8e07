"""What models that run here leave of the documents they read, as the configuration says it."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

_UNITS: Final = {"": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def _bytes(size: object) -> object:
    if not isinstance(size, str):
        return size
    said = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", size.lower())
    if said is None or said[2] not in _UNITS:
        raise PydanticCustomError("size", 'is no size; write "4 GB", or a number of bytes')
    return int(float(said[1]) * _UNITS[said[2]])


class KeptCaches(BaseModel):
    """`[kept_caches]`: the caches of pieces of documents, for the questions to come."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    limit: Annotated[int, BeforeValidator(_bytes), Field(ge=0)] = 4_000_000_000
    """Bytes of all together; what was not read from longest goes first. 0: nothing is kept."""
    precision: Literal["exact", "int8"] = "exact"
    """As the model holds its cache, or in a byte a number: half the size, and answers may change a little."""
    write: Literal["always", "index"] = "always"
    """Whether questions that name a recipe leave what they read, or `lcdoc index` alone does."""
