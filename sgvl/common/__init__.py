"""What every other folder builds on: errors, paths, progress, strict YAML, registries."""
