"""Suites of pytest-benchmark, one for each operation, and the checks and figures of a GPU."""
