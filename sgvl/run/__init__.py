"""The runner: which units a profile has, and running those that are not up to date.

Notebooks call ``check("05_benchmark", globals())`` right after their parameters.
"""

from sgvl.run.parameters import check

__all__ = ["check"]
