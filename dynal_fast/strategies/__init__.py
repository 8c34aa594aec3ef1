"""Acquisition strategies: what a strategy is, the registry, the built-in ones."""
