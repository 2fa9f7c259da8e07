"""Behaviours by chance, written as JSON, so that another process can be told what to serve.

    {"answer": {"kind": "Echo", "template": "{key}"},
     "faults": [{"weight": 0.05, "kind": "Status", "code": 429}, {"weight": 0.01, "kind": "Hang"}],
     "seed": 7}

`answer` is what becomes of a request unless a fault is drawn. The draw depends on the seed, the request's key and how
often that key was asked, so that it is the same however requests are interleaved.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from lcdoc.tests.servers import behaviours
from lcdoc.tests.servers.behaviours import Behaviour, Recorded


class Mix:
    """Chooses a behaviour for each request."""

    def __init__(self, answer: Behaviour, faults: list[tuple[float, Behaviour]], seed: int) -> None:
        self._answer = answer
        self._bounds = list(accumulate(weight for weight, _ in faults))
        self._faults = [fault for _, fault in faults]
        self._seed = seed
        self._asked: Counter[str] = Counter()
        if self._bounds and not 0 <= self._bounds[-1] < 1:
            raise ValueError(f"the weights of the faults add up to {self._bounds[-1]}, not to less than 1")

    def __call__(self, recorded: Recorded) -> Behaviour:
        key = recorded.key
        self._asked[key] += 1
        drawn = random.Random(f"{self._seed}/{key}/{self._asked[key]}").random()
        for bound, fault in zip(self._bounds, self._faults, strict=True):
            if drawn < bound:
                return fault
        return self._answer


def behaviour_from_json(form: Mapping[str, Any]) -> Behaviour:
    """The behaviour named by `kind`, with the other members as its fields."""
    fields = {name: value for name, value in form.items() if name not in ("kind", "weight")}
    if isinstance(fields.get("body"), str) and form["kind"] == "Garbage":
        fields["body"] = fields["body"].encode()
    kind = getattr(behaviours, form["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, Behaviour)):
        raise ValueError(f"no behaviour is called {form['kind']}")
    return kind(**fields)


def mix_from_json(form: Mapping[str, Any]) -> Mix:
    """See the module. Raises ValueError for weights that do not fit and kinds that do not exist."""
    return Mix(
        behaviour_from_json(form["answer"]),
        [(fault["weight"], behaviour_from_json(fault)) for fault in form.get("faults", ())],
        form.get("seed", 0),
    )
