"""What is made of all findings for a field: equal ones are one, different ones are settled, or told.

The sides of a conflict are the two surest values; a reader reads the passages of both again together, as `conflicts`
has it. Where that does not settle it, the surer value is taken if it is clearly surer, and else none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lcdoc.agents.extract_fields import Field, Table
from lcdoc.agents.extract_findings import Finding, value_text
from lcdoc.agents.extract_values import same_value
from lcdoc.agents.notes import same_evidence
from lcdoc.workflows.conflicts import CONTRADICTED_CONFIDENCE, Settlement, settle
from lcdoc.workflows.extract_answer import FieldState
from lcdoc.workflows.session import Session
from lcdoc.workflows.sides import CONFIDENT, Side

MOST_SETTLED = 6
"""Fields of one run whose conflicts are read again; those of others are told as they are."""
CLEARLY = 1.0
"""By how much one value has to be surer than another to be taken without being settled."""
_LEAST_SHARED = 2
"""Cells that two rows have to have in common to be one, where one has more cells."""

Named = tuple[str, Finding]
"""A finding with the name of its note."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a field: its value, what bears it out, and what else was found."""

    wanted: Field | Table
    state: FieldState
    value: Any = None
    chosen: tuple[Finding, ...] = ()
    others: tuple[Finding, ...] = ()
    refused: tuple[str, ...] = ()
    warning: str | None = None

    @property
    def confidence(self) -> float:
        return max((one.confidence for one in self.chosen), default=0.0) if self.value is not None else 0.0


@dataclass(slots=True)
class _Value:
    """Findings that say the same, the surest first."""

    finding: Finding
    names: list[str] = field(default_factory=list)

    def add(self, name: str, other: Finding) -> None:
        fresh = tuple(
            c for c in other.citations if not any(same_evidence(c, known) for known in self.finding.citations)
        )
        self.finding = replace(self.finding, citations=self.finding.citations + fresh)
        self.names.append(name)


def conflict_of(wanted: Field, named: Sequence[Named]) -> tuple[Side, Side] | None:
    """The two surest values of a field where both are sure enough to be asked about; None where they do not differ."""
    sure = [one for one in _values(wanted, named) if one.finding.confidence >= CONFIDENT][:2]
    if len(sure) < 2:
        return None
    first, second = map(_side, sure)
    return first, second


async def settle_field(session: Session, wanted: Field, sides: tuple[Side, Side]) -> Settlement:
    """Reads both sides again together: see `settle`. Raises ModelError."""
    return await settle(session, sides, question=wanted.question)


def outcome_of(wanted: Field, named: Sequence[Named], settlements: Sequence[Settlement]) -> Outcome:
    """What came of a field of one value. `settlements` are those of the run."""
    refused = _refused(named)
    values = _values(wanted, named)
    if not values:
        return Outcome(wanted, "refused" if refused else "not_found", refused=refused)
    sides = conflict_of(wanted, named)
    settled = next((one for one in settlements if sides and one.sides == sides), None)
    if settled is not None and (held := settled.holds) is not None:
        values.sort(key=lambda one: _side(one).claim != held.claim)
        others = tuple(
            replace(one.finding, confidence=min(one.finding.confidence, CONTRADICTED_CONFIDENCE)) for one in values[1:]
        )
        return Outcome(wanted, "found", values[0].finding.value, (values[0].finding,), others, refused)
    chosen, *rest = [one.finding for one in values]
    if sides is None or chosen.confidence - rest[0].confidence >= CLEARLY:
        return Outcome(wanted, "found", chosen.value, (chosen,), tuple(rest), refused)
    said = " against ".join(value_text(one.value) for one in (chosen, *rest)[:2])
    warning = f"{wanted.name}: the documents give {said}; none was taken, since nothing tells which holds"
    return Outcome(wanted, "conflict", None, (), (chosen, *rest), refused, warning)


def list_of(wanted: Field | Table, named: Sequence[Named]) -> Outcome:
    """What came of a field of many values, or of a table: each value or row once, in the order of the documents."""
    refused = _refused(named)
    kept: list[_Value] = []
    for name, finding in sorted(((n, f) for n, f in named if f.citations), key=lambda one: _place(one[1])):
        same = next((one for one in kept if _same(wanted, one.finding.value, finding.value)), None)
        if same is None:
            kept.append(_Value(finding, [name]))
        else:
            same.add(name, finding)
            if isinstance(wanted, Table):
                filled = {
                    key: given if given is not None else finding.value.get(key)
                    for key, given in same.finding.value.items()
                }
                same.finding = replace(same.finding, value=filled)
    findings = tuple(one.finding for one in kept)[: wanted.most]
    if not findings:
        return Outcome(wanted, "refused" if refused else "not_found", [], refused=refused)
    return Outcome(wanted, "found", [one.value for one in findings], findings, refused=refused)


def _same(wanted: Field | Table, one: Any, other: Any) -> bool:
    if isinstance(wanted, Field):
        return same_value(wanted, one, other)
    both = [name for name in one if one[name] is not None and other[name] is not None]
    if any(one[name] != other[name] for name in both):
        return False
    fewer = min(sum(given is not None for given in row.values()) for row in (one, other))
    # A row with less in it is a mention of the one with more.
    return one == other or (len(both) == fewer and len(both) >= _LEAST_SHARED)


def _values(wanted: Field, named: Sequence[Named]) -> list[_Value]:
    """Different values, the surest first; of those equally sure, the one that is said more often, then earlier."""
    found = [(name, finding) for name, finding in named if finding.citations]
    values: list[_Value] = []
    for name, finding in sorted(found, key=lambda one: (-one[1].confidence, _place(one[1]))):
        same = next((one for one in values if same_value(wanted, one.finding.value, finding.value)), None)
        if same is None:
            values.append(_Value(finding, [name]))
        else:
            same.add(name, finding)
    return sorted(values, key=lambda one: (-one.finding.confidence, -len(one.finding.citations)))


def _side(value: _Value) -> Side:
    finding = value.finding
    return Side(
        names=tuple(dict.fromkeys(value.names)),
        claim=finding.text,
        citations=finding.citations,
        confidence=finding.confidence,
        values=frozenset({value_text(finding.value)}),
    )


def _refused(named: Sequence[Named]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.refused for _, finding in named if finding.refused))


def _place(finding: Finding) -> tuple[str, int]:
    first = finding.citations[0]
    return first.document_id, first.span.start
