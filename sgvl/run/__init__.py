"""The runner: lists the units of a profile and runs those that are not up to date.

Notebooks call ``check("05_benchmark", globals())`` right after their parameters.
"""

from sgvl.run.parameters import check
from sgvl.run.receipts import why_unavailable
