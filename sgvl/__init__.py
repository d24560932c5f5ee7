"""sgvl: does an image guardrail read the policy it is given?

The package behind the numbered notebooks. Each module stands alone; import the one you need,
for example ``from sgvl.policies import load``. Importing ``sgvl`` itself loads nothing heavy.
"""

__version__ = "0.1.0"
