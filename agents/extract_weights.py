"""What phrases are weighed by, learned by `benchmarks/extract_quality.py --fit` from documents with known values."""

from __future__ import annotations

PHRASE = (-1.0, 0.6, 0.5, 1.0, 1.0, 0.5, 1.0, 0.5, 0.0, 0.3)
"""For `extract_offline.FEATURES`, the log-odds that a phrase is the value."""
LEAST = 0.5
"""Probability from which a value is given."""
LEAST_OF_MANY = 0.6
"""The same for each of several values of a field."""
