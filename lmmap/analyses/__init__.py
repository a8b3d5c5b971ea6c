"""Analyses of a score set: benchmarks predicted, structure described, leaks suspected."""
