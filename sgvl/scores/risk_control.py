"""Thresholds on P(unsafe) that bound the risk of a verdict; what lies between goes to a person.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024, arXiv:2208.02814,
section 1.1): of the thresholds whose loss can only grow, take the boldest with

    n / (n + 1) * (mean loss on n labelled pictures) + 1 / (n + 1)  <=  risk

The expected loss on the next picture is then at most ``risk``, if it comes from where the labelled
ones came from. There are two losses, each within its class: an unsafe picture that passes as safe
(missed), and a safe one that is called unsafe (a false alarm). The bound holds on average over sets
of labelled pictures; with one set, the risk of all further pictures can be above it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from sgvl.common.errors import InputError
from sgvl.scores import intervals
from sgvl.text.verdict import SAFE, UNSAFE

PERSON = "a person"  # decides where P(unsafe) lies between the thresholds, or is missing


class Thresholds(NamedTuple):
    """P(unsafe) below which a picture is safe, and above which it is unsafe."""

    safe_below: float
    unsafe_above: float

    def decide(self, p_unsafe) -> np.ndarray:
        """Return safe, unsafe or a person for each P(unsafe); a missing one is for a person."""
        p = np.asarray(p_unsafe, float)
        return np.select([p < self.safe_below, p > self.unsafe_above], [SAFE, UNSAFE], PERSON)

    def __str__(self) -> str:
        below, above = map(_digits, self)
        return f"safe below P(unsafe) {below}, unsafe above {above}, else a person"


def _digits(p: float) -> str:
    """Print a threshold; one that would read 1 and is not is printed as its distance from 1.

    >>> _digits(0.25), _digits(0.9999987), _digits(1.0)
    ('0.25', '1 - 1.3e-06', '1')
    """
    return f"1 - {1 - p:.2g}" if 0.9995 <= p < 1 else f"{p:.3g}"


def thresholds(p_unsafe, labels: Sequence[str], risk: float) -> Thresholds:
    """Return the thresholds whose expected missed pictures and false alarms are at most ``risk``.

    Where both bounds leave room for each other, one threshold between them decides all, as near to
    0.5 as they allow.

    Parameters
    ----------
    p_unsafe, labels : of the labelled pictures; one without P(unsafe) says nothing
    risk : a share of the unsafe, and of the safe pictures. With less than ``needed(risk)`` of a
        class, no picture is decided against it

    Raises
    ------
    InputError
        For a risk that is not between 0 and 1.

    >>> thresholds([0.1, 0.2, 0.7, 0.3, 0.8, 0.9], ["safe"] * 3 + ["unsafe"] * 3, risk=0.5)
    Thresholds(safe_below=0.5, unsafe_above=0.5)
    """
    if not 0 < risk < 1:
        raise InputError(f"risk {risk}: allowed is a share between 0 and 1, such as 0.05")
    p, labels = np.asarray(p_unsafe, float), np.asarray(labels)
    unsafe, safe = (p[(labels == label) & ~np.isnan(p)] for label in (UNSAFE, SAFE))
    below, above = _boldest(unsafe, risk, 0.0), -_boldest(-safe, risk, -1.0)
    if below > above:
        below = above = min(max(0.5, above), below)
    return Thresholds(float(below), float(above))


def needed(risk: float) -> int:
    """Return how many labelled pictures of a class it takes to decide anything.

    >>> needed(0.05)
    19
    """
    return math.ceil(1 / risk - 1e-9) - 1


def _boldest(p: np.ndarray, risk: float, none: float) -> float:
    """Return the highest threshold with few enough ``p`` below it, or ``none``."""
    below = math.floor(risk * (len(p) + 1) + 1e-9) - 1  # as many may lie below it
    return np.sort(p)[below] if below >= 0 else none


def leave_one_out(p_unsafe, labels: Sequence[str], groups: Sequence, risk: float) -> np.ndarray:
    """Decide about each labelled picture by the thresholds of all other groups' pictures."""
    p, labels, groups = np.asarray(p_unsafe, float), np.asarray(labels), np.asarray(groups)
    decisions = np.full(len(p), PERSON, dtype=object)
    for group in np.unique(groups):
        own = groups == group
        decisions[own] = thresholds(p[~own], labels[~own], risk).decide(p[own])
    return decisions


def measure(decisions: Sequence[str], labels: Sequence[str], groups: Sequence) -> pd.DataFrame:
    """Return what decisions cost, in percent with 95 % intervals over groups.

    Columns: measure, n, value, low, high. *Missed* is of the unsafe pictures, *false alarms* of the
    safe ones, *decided* of all: without a person.
    """
    decisions, labels, groups = map(np.asarray, (decisions, labels, groups))
    parts = {
        "missed": (labels == UNSAFE, decisions == SAFE),
        "false alarms": (labels == SAFE, decisions == UNSAFE),
        "decided": (labels == labels, decisions != PERSON),
    }
    rows = [
        {"measure": name, "n": int(own.sum())} | intervals.average(hits[own], groups[own])._asdict()
        for name, (own, hits) in parts.items()
    ]
    return pd.DataFrame(rows)
