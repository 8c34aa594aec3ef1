"""One folder per operation: its contract and checks, its float64 reference, its implementations."""
