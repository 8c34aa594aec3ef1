"""The pages with results: text written by hand, tables made from the committed records.

``python -m benchmarks.pages`` in the source tree writes the tables into the README,
``docs/benchmarks.md``, ``docs/experiments.md`` and the page on research code; it changes nothing
but what stands between markers (`benchmarks.pages.markers`).
"""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.pages import experiments, peers, results
from benchmarks.pages.markers import fill
from dynal_fast.files import write_atomically


def tables_of(root: Path) -> dict[Path, Mapping[str, str]]:
    """Return the tables, by name, of each page below ``root``."""
    records = results.load_records(root)
    research_code = root / "docs" / "how-to" / "use-it-in-research-code.md"
    return {
        root / "README.md": {"benchmarks": results.readme_table(*records[0])},
        root / "docs" / "benchmarks.md": results.page_tables(records),
        root / "docs" / "experiments.md": experiments.page_tables(root),
        research_code: {"peers": peers.page_table(root)},
    }


def write(root: Path) -> list[Path]:
    """Fill the pages below ``root`` from the records there; return those that changed.

    Raises
    ------
    ValueError
        On a page, a table has no pair of markers, or a marker belongs to no table.
    """
    filled = {}
    for path, tables in tables_of(root).items():
        before = path.read_text()
        try:
            filled[path] = before, fill(before, tables)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None
    changed = [path for path, (before, after) in filled.items() if after != before]
    for path in changed:
        write_atomically(path, filled[path][1].encode())
    return changed
