"""Measuring answers on real questions: sets of questions, metrics of the field, runs that are kept and compared."""
