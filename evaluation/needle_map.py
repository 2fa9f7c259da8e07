"""Where planted facts were found: shares by length of the text and depth of the fact."""

from __future__ import annotations

from statistics import fmean

from lcdoc.evaluation.report import Result


def is_map(result: Result) -> bool:
    """Whether the evaluation is one of planted facts."""
    return bool(result.evaluation.settings["set"] == "needle_haystacks")


def shares(result: Result) -> dict[tuple[int, int], float]:
    """Share of the facts found, by (tokens, percent); empty for an evaluation of anything else."""
    found: dict[tuple[int, int], list[float]] = {}
    for name, item in result.items.items() if is_map(result) else ():
        length, depth, _ = map(int, name.split("/"))
        found.setdefault((length, depth), []).append(item["figures"]["contains"])
    return {place: fmean(hits) for place, hits in sorted(found.items())}


def map_text(result: Result) -> str:
    """A line for each depth, a column for each length."""
    return "\n".join(row[0].rjust(14) + "".join(cell.rjust(9) for cell in row[1:]) for row in map_rows(result))


def map_rows(result: Result) -> list[list[str]]:
    """The map as a table: its header has the lengths, each row a depth and the shares."""
    found = shares(result)
    lengths, depths = (sorted({place[axis] for place in found}) for axis in (0, 1))
    rows = [["depth, tokens", *(f"{length:,}" for length in lengths)]]
    for depth in depths:
        cells = (f"{found[length, depth]:.0%}" if (length, depth) in found else "" for length in lengths)
        rows.append([f"{depth} %", *cells])
    return rows
