"""Dates and times of day as documents write them, in ISO 8601: English, German, French, Spanish, Italian and Dutch.

`03/04/2021` is a day in March or in April: both are kept, and how the document writes its other dates tells which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time
from itertools import islice
from typing import Final

MOST_DATES = 1_000
"""Looked at in one text."""
_CENTURY_TURNS = 70
"""Years of two digits from here on are of the last century."""
_MONTH_NAMES = """
january jan januar jänner janvier janv enero ene gennaio gen januari
february feb februar février févr fevrier febrero febbraio februari
march mar märz mrz mars marzo maart
april apr avril avr abril abr aprile
may mai mayo maggio mei
june jun juni juin junio giugno
july jul juli juillet juil julio luglio
august aug août aout agosto ago augustus
september sept sep septembre septiembre settembre
october oct oktober okt octobre octubre ottobre
november nov novembre noviembre
december dec dezember dez décembre déc decembre diciembre dic dicembre
"""
MONTHS: Final = {
    name: number for number, names in enumerate(_MONTH_NAMES.strip().splitlines(), 1) for name in names.split()
}
_MONTH = rf"(?P<month>{'|'.join(sorted(MONTHS, key=len, reverse=True))})\b\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|º|\.)?"
_YEAR = r"(?P<year>\d{4}|['’]\d\d)(?!\d)"
_OF = r"(?:\s+(?:day\s+of|of|de|del|di))?"
_FORMS: Final = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?<![\d.])(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})(?![\d])",
        rf"(?<![\d.,])(?:the\s+)?{_DAY}{_OF}[\s-]+{_MONTH}(?:,?{_OF}|,)?[\s-]+{_YEAR}",
        rf"\b{_MONTH}\s+(?:the\s+)?{_DAY}(?:\s*,\s*|\s+(?:of\s+)?){_YEAR}",
    )
)
_NUMERIC = re.compile(
    r"(?<![\d./-])(?P<first>\d{1,2})(?P<mark>[./-])\s?(?P<second>\d{1,2})(?P=mark)\s?(?P<year>\d{4}|\d\d)(?![\d]|[./-]\d)"
)
_TIME = re.compile(
    r"(?<![\d:.])(?P<hour>\d{1,2})(?:[:.h](?P<minute>\d\d)(?::(?P<second>\d\d))?)?\s?(?P<half>[ap]\.?\s?m\b\.?)?(?P<clock>\s?(?:uhr|h|o'clock)\b)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DateAt:
    """A date in a text: where it stands, and which days it may be, the likeliest first."""

    start: int
    end: int
    days: tuple[date, ...]


def dates_in(text: str, *, day_first: bool | None = None) -> list[DateAt]:
    """The full dates of a text, in order. `day_first` is how its document writes them: see `writes_day_first`."""
    found: list[DateAt] = []
    for form in _FORMS:
        for match in islice(form.finditer(text), MOST_DATES):
            named = match["month"].lower().rstrip(".")
            month = int(named) if named.isdecimal() else MONTHS[named]
            day = _day(_year(match["year"].lstrip("'’")), month, int(match["day"]))
            if day and not any(one.start < match.end() and match.start() < one.end for one in found):
                found.append(DateAt(match.start(), match.end(), (day,)))
    for match in islice(_NUMERIC.finditer(text), MOST_DATES):
        first, second, year = int(match["first"]), int(match["second"]), _year(match["year"])
        days = [_day(year, second, first), _day(year, first, second)]
        if match["mark"] == ".":
            days = days[:1]
        elif day_first is False:
            days.reverse()
        known = tuple(dict.fromkeys(day for day in days if day))
        if known and not any(one.start < match.end() and match.start() < one.end for one in found):
            found.append(DateAt(match.start(), match.end(), known))
    return sorted(found, key=lambda one: one.start)


def date_of(said: str, *, day_first: bool | None = None) -> date | None:
    """The one day that `said` names; None where it is none, several, or one of two and nothing tells which."""
    dates = dates_in(said, day_first=day_first)
    if not dates or len({one.days for one in dates}) != 1:
        return None
    days = dates[0].days
    return days[0] if len(days) == 1 or day_first is not None else None


def times_in(text: str) -> list[tuple[int, int, time]]:
    """The times of day of a text: `14:30`, `2.30 pm`, `14 Uhr`; where each begins and ends."""
    found: list[tuple[int, int, time]] = []
    dates = dates_in(text)
    for match in islice(_TIME.finditer(text), MOST_DATES):
        if any(one.start < match.end() and match.start() < one.end for one in dates):
            continue
        hour, half = int(match["hour"]), (match["half"] or "").lower()
        if not half and not match["clock"] and not (match["minute"] and text[match.end("hour")] in ":hH"):
            continue
        if half:
            if not 1 <= hour <= 12:
                continue
            hour = hour % 12 + (12 if half.startswith("p") else 0)
        minute, second = int(match["minute"] or 0), int(match["second"] or 0)
        if hour < 24 and minute < 60 and second < 60:
            found.append((match.start(), match.end(), time(hour, minute, second)))
    return found


def time_of(said: str) -> time | None:
    """The one time of day that `said` names; None where it is none, or several."""
    times = {one for _, _, one in times_in(said)}
    return times.pop() if len(times) == 1 else None


def writes_day_first(text: str) -> bool | None:
    """Whether a text writes the day before the month, by its dates that can be read in one way only; None: unknown."""
    days = months = 0
    for match in islice(_NUMERIC.finditer(text), MOST_DATES):
        if match["mark"] == ".":
            continue
        first, second = int(match["first"]), int(match["second"])
        days += first > 12 >= second
        months += second > 12 >= first
    return None if days == months else days > months


def _year(digits: str) -> int:
    year = int(digits)
    if len(digits) == 2:
        return year + (1900 if year >= _CENTURY_TURNS else 2000)
    return year


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
