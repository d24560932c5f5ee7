"""Shared basics: errors, paths, progress, strict YAML, registries."""
