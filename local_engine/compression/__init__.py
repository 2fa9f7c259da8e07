"""Holding a long text in a small cache: which entries are kept, how many, and what becomes of the others."""
