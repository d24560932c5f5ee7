"""Judgements to numbers with intervals. Nothing here asks a model."""
