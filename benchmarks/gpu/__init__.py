"""The run on a real GPU: parity, repetitions against races, figures beside the measured ceilings.

``python -m benchmarks.gpu`` (``make gpu``) needs the machine's own torch and triton, and nothing
else. A section is a module with ``figures(setting) -> Iterator[Figure]``; `SECTIONS` lists them.
"""

# the most telling first
SECTIONS = ("farthest_first", "pool_stats", "head", "observation")
