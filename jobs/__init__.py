"""Batch jobs: many documents, many questions, results that are never lost and never made twice."""
