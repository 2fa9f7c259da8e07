"""Office math as one line of text: `x=(-b±√(b^2-4ac))/2a`, close to what Word calls the linear format.

Office Open XML (ISO/IEC 29500-1), section 22.1; Unicode Technical Note 28 for the linear form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_ARGUMENTS: Final = frozenset({"num", "den", "sup", "sub", "e", "deg", "fName", "lim"})
_STRUCTURES: Final = frozenset(
    {"acc", "bar", "box", "borderBox", "d", "eqArr", "f", "func", "groupChr", "limLow", "limUpp", "m", "mr", "nary"}
    | {"phant", "rad", "sPre", "sSub", "sSubSup", "sSup"}
)
_SETTINGS: Final = frozenset({"chr", "begChr", "endChr", "sepChr", "type"})
_ATOM: Final = re.compile(r"[\w.,′°%]*|\([^()]*\)|.")


@dataclass
class _Frame:
    name: str
    text: list[str] = field(default_factory=list)
    arguments: list[tuple[str, str]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        return next((text for argument, text in self.arguments if argument == name), "")

    def all(self, name: str) -> list[str]:
        return [text for argument, text in self.arguments if argument == name]


class MathLine:
    """Fed with the elements of one `m:oMath` in document order, it gives the formula as text."""

    def __init__(self) -> None:
        self._frames = [_Frame("oMath")]

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name in _ARGUMENTS or name in _STRUCTURES:
            self._frames.append(_Frame(name))
        elif name in _SETTINGS:
            value = next((value for key, value in attributes.items() if key.rpartition("}")[2] == "val"), "")
            self._frames[-1].settings[name] = value

    def text(self, text: str) -> None:
        self._frames[-1].text.append(text)

    def end(self, name: str) -> None:
        if len(self._frames) < 2 or self._frames[-1].name != name:
            return
        frame = self._frames.pop()
        outer = self._frames[-1]
        if name in _ARGUMENTS:
            outer.arguments.append((name, "".join(frame.text)))
        elif name == "mr":
            outer.arguments.append(("e", "&".join(frame.all("e"))))
        else:
            outer.text.append(_linear(frame))

    def line(self) -> str:
        """The whole formula."""
        while len(self._frames) > 1:
            self.end(self._frames[-1].name)
        return "".join(self._frames[0].text)


def _linear(frame: _Frame) -> str:  # noqa: PLR0911 - one line for each structure reads best
    body = frame.get("e")
    match frame.name:
        case "f":
            bar = "¦" if frame.settings.get("type") == "noBar" else "/"
            return f"{_group(frame.get('num'))}{bar}{_group(frame.get('den'))}"
        case "rad":
            degree = frame.get("deg")
            return f"{_group(degree)}√{_group(body)}" if degree else f"√{_group(body)}"
        case "nary":
            return frame.settings.get("chr", "∫") + _scripts(frame) + (" " if body else "") + body
        case "sSub" | "sSup" | "sSubSup":
            return _group(body) + _scripts(frame)
        case "sPre":
            return _scripts(frame) + body
        case "d":
            left, right = frame.settings.get("begChr", "("), frame.settings.get("endChr", ")")
            return left + frame.settings.get("sepChr", "|").join(frame.all("e")) + right
        case "func":
            return f"{frame.get('fName')} {body}"
        case "limLow":
            return f"{body}_{_group(frame.get('lim'))}"
        case "limUpp":
            return f"{body}^{_group(frame.get('lim'))}"
        case "m" | "eqArr":
            rows = "; ".join(frame.all("e"))
            return f"[{rows}]" if frame.name == "m" else rows
    return body + "".join(frame.text)


def _scripts(frame: _Frame) -> str:
    below, above = frame.get("sub"), frame.get("sup")
    return (f"_{_group(below)}" if below else "") + (f"^{_group(above)}" if above else "")


def _group(text: str) -> str:
    """In parentheses unless it is one thing already."""
    text = text.strip()
    return text if _ATOM.fullmatch(text) else f"({text})"
