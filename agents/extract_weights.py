"""What phrases are weighed by, and from which probability on they are given as values.

The weights are set by hand; `benchmarks/extract_quality.py --fit` learns others from documents with known values. The
thresholds were chosen there for few wrong values, not for many right ones.
"""

from __future__ import annotations

PHRASE = (-1.0, 0.6, 0.5, 1.0, 1.0, 0.5, 1.0, 0.5, 0.0, 0.3)
"""For `extract_offline.FEATURES`, the log-odds that a phrase is the value."""
LEAST = 0.8
"""Probability from which a value is given."""
LEAST_OF_ADDRESS = 0.5
"""The same of an e-mail or web address, of which a text has few."""
LEAST_NEAR_OF_TEXT = 0.55
"""How near the field's words have to stand to a name that is given: names are everywhere."""
LEAST_ALONE, LEAST_NEAR = 0.5, 0.5
"""A sentence may have two phrases of a kind; of more, only one as near as this is given."""
