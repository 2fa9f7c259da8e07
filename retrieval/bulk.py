"""Which forward pass many texts are given: a GPU, 8-bit products, or none better than numpy.

Both need torch, whose import takes seconds, so they are for work that takes longer. Bfloat16 is not among them: on
processors without matrix units for it, it is slower than float32 (`benchmarks/embed.py` has the figures).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path

from lcdoc.retrieval.bert import Encoder
from lcdoc.retrieval.packs import Runner, cores

WORTH_TOKENS_PER_CORE = 20_000
"""Tokens for each core from which loading torch (three seconds) and embedding twice as fast takes less time."""
LEAST_COSINE = 0.995
"""How near to float32 the 8-bit vectors of the calibration passages must be."""

CALIBRATION = (
    "The committee met on 14 March 1987 and resolved, by nine votes to two, that the harbour works should be finished "
    "before the winter. Mrs. Aldous, who had opposed the plan from the first, asked that her reasons be minuted.",
    "Net sales rose 7.3% to $4,218 million (2021: $3,931 million), while cost of goods sold grew to $2,604 million; "
    "gross margin fell from 39.1% to 38.3%. See Note 12, Commitments and Contingencies.\n\nTotal assets  9,871  9,402",
    "\u201cYou never told me,\u201d she said, and shut the door so quietly that he did not hear it. Outside it had "
    "begun to rain; the lamps along the quay were lit, one after another, by a boy with a pole.",
    "The enzyme binds its substrate at the N-terminal domain (Kd = 2.4 nM). Mutants lacking residues 34-61 showed no "
    "activity in vitro, p < 0.001, n = 18, although their expression was unchanged [17, 22].",
    "14.2 Termination. Either party may terminate this Agreement upon thirty (30) days' prior written notice if the "
    "other party materially breaches any provision hereof and fails to cure such breach within said period.",
    "def area(r): return 3.14159 * r ** 2  # https://example.org/geometry?q=1&lang=en CHAPTER IV. WHAT THE ROMANS KNEW",
    "What was the rate of interest?",
)
"""Prose, figures, speech, science, contract, code: their largest values set the steps of the 8-bit products."""

_log = logging.getLogger(__name__)


def worth_trying(tokens: int) -> bool:
    """Whether so much text, on a machine that looks like this one, is worth importing torch for."""
    return tokens > WORTH_TOKENS_PER_CORE * cores() and (_has_gpu() or _has_vnni())


def bulk_runner(encoder: Encoder, calibration: Sequence[Sequence[int]]) -> Runner | None:
    """The fastest forward pass for many texts that is not numpy's; None where there is none.

    `calibration` holds the token ids of CALIBRATION.
    """
    import torch

    if torch.cuda.is_available():
        from lcdoc.retrieval.bert_gpu import GpuEncoder

        return Runner(
            "cuda float32", GpuEncoder(encoder, "cuda").pooled, pack_tokens=32_768, threads=1, limits=nullcontext
        )
    if not _has_vnni():
        return None
    return int8_runner(encoder, calibration)


def int8_runner(encoder: Encoder, calibration: Sequence[Sequence[int]]) -> Runner | None:
    """8-bit products on all cores; None, with a line in the log, where they do not work or are not accurate."""
    from lcdoc.retrieval.bert_int8 import Int8Encoder, one_thread_each

    try:
        with one_thread_each():
            fast = Int8Encoder(encoder, calibration)
            cosine = float((fast.pooled(calibration) * encoder.pooled(calibration)).sum(axis=1).min())
    except (AttributeError, RuntimeError) as error:
        _log.warning("embedding stays in float32: this torch has no 8-bit products here (%s)", error)
        return None
    if not cosine >= LEAST_COSINE:
        _log.warning("embedding stays in float32: 8-bit vectors are only within %.4f cosine of it here", cosine)
        return None
    return Runner("cpu int8", fast.pooled, pack_tokens=512, threads=cores(), limits=one_thread_each)


@cache
def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


@cache
def _has_vnni() -> bool:
    """Whether the processor multiplies bytes into 32-bit sums in one instruction (as far as Linux tells)."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
