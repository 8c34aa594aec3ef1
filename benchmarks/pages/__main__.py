"""Write the tables of every page: ``python -m benchmarks.pages`` in the source tree."""

from pathlib import Path

from benchmarks.pages import write

for path in write(Path()):
    print(f"{path}: written")
