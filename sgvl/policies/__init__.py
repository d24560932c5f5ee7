"""Policies as files: ``load("L2")`` loads one, ``load_all()`` all levels."""

from sgvl.policies.policy import LEVELS, Policy, Ruling, load, load_all

__all__ = ["LEVELS", "Policy", "Ruling", "load", "load_all"]
