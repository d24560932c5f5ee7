"""Policies as files: ``load("L2")`` loads one, ``load_all()`` all levels."""

from sgvl.policies.policy import LEVELS, Policy, load, load_all
