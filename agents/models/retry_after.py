"""How long a server asks to wait, in whichever of the usual ways it says so."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

_UNITS_S: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_IN_WORDS: Final = re.compile(r"(?:try|retry)(?: again)? (?:in|after) ((?:\d+(?:\.\d+)?(?:ms|[dhms]))+)", re.IGNORECASE)


def stated_delay_s(headers: Mapping[str, str], text: str) -> float | None:
    """Seconds to wait by a refusal's headers (lower-case names), else by its text; None where neither says.

    `retry-after-ms`; `retry-after` as seconds or an HTTP date; `x-ratelimit-reset-requests` and `-tokens` (`6m0s`,
    `1.5s`) of the limit that is used up; "Please try again in 1.5s".
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after")
    if stated is not None and (delay := _number(stated)) is not None:
        return delay
    if stated is not None and (delay := _until_date_s(stated)) is not None:
        return delay
    resets = [
        (headers.get(f"x-ratelimit-remaining{what}"), delay)
        for what in ("-requests", "-tokens", "")
        if (delay := _reset_s(headers.get(f"x-ratelimit-reset{what}"))) is not None
    ]
    used_up = [delay for remaining, delay in resets if remaining is not None and remaining.strip() == "0"]
    if used_up:
        return max(used_up)
    if found := _IN_WORDS.search(text):
        return duration_s(found[1])
    # Without a count of what remains it is not known which limit was hit.
    unclear = [delay for remaining, delay in resets if remaining is None]
    return max(unclear) if unclear else None


def duration_s(text: str) -> float | None:
    """Seconds of a duration such as `6m0s`, `1h2m3s`, `120ms`, `1.5s`; None for anything else."""
    text = text.strip().lower()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return math.fsum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _reset_s(text: str | None) -> float | None:
    if text is None:
        return None
    value = _number(text)
    if value is None:
        return duration_s(text)
    if value > 1e12:
        value /= 1000
    # Large numbers are moments since 1970, small ones durations.
    return max(0.0, value - time.time()) if value > 1e9 else value


def _until_date_s(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, moment.timestamp() - time.time())
