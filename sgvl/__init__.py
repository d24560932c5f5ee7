"""sgvl: does an image guardrail read the policy it is given?

The package behind the numbered notebooks. Each module stands alone; import the one you need,
for example ``from sgvl.policies import load``. Importing ``sgvl`` itself loads nothing heavy.
"""

import os

# torch reads it when it is imported. By default, a thread that waits for another keeps its core
# busy; where a further process needs a core, each wait then lasts until that one is interrupted.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
