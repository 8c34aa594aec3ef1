"""One folder per operation: contract, float64 reference, implementations, and a ``README.md``."""
