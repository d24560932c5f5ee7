"""The nano base model and the script that builds it, ``python -m sgvl.nano.build``."""
