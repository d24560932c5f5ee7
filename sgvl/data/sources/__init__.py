"""Published data sets and your own folders, loaded by name: ``load_sources(specs)``."""

from sgvl.data.sources.registry import load_source, load_sources
