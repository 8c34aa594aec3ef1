"""Acquisition: scores of pool samples and the selection of a batch."""
