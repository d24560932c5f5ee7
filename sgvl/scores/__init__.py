"""Scores of judgements, with intervals. Nothing here calls a model."""
