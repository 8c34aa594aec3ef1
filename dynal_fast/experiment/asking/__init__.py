"""A person as the oracle: what is asked for, in which files, and how the answers are read."""
