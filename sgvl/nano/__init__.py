"""The nano base model: how it is built (``python -m sgvl.nano.build``) and the built model."""
