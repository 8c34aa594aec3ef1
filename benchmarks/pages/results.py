"""The results page and the README's table, made from the records: no figure is typed by hand.

``python -m benchmarks.pages.results`` in the source tree rewrites both from ``benchmarks/results``.
"""

import json
import sys
from pathlib import Path

from dynal_fast.bench.competitors import OURS
from dynal_fast.bench.record import SCHEMA, Record
from dynal_fast.bench.suites import HEADLINE, STATISTICS
from dynal_fast.bench.table import (
    GROWTH_HEADER,
    SPLIT_HEADER,
    growth_rows,
    header,
    markdown_table,
    row,
    rows,
    split_rows,
)
from dynal_fast.files import write_atomically

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

INTRODUCTION = """# Benchmarks

Made by `python -m benchmarks.pages.results` from the records in `benchmarks/results`; `dynal-fast
bench` measures the same on your machine. Every row is measured in a fresh process: the median of
the repetitions with their range, and the peak of memory beyond the inputs. `≈` marks figures
extrapolated from a smaller run. *Exactness* compares picks with the exact traversal (the share of
positions that agree, and the cover radius over the exact one), and statistics with float64 NumPy,
of the smaller run where a figure is extrapolated; *uncertainty* is the entropy, top probability and
margin of the last epoch. Our own picks are certified by float64 distances: none falls short of the
farthest sample by more than 1e-6; *near ties* are picks that another sample comes that close to,
*gaps* those that fall short at all, which rounding to float32 decides. Ratios are to our time on
the same case in the same record.

Of pool statistics, *time* is of the whole job: make the tracker, observe every epoch, score. It has
the first touch of the state's memory in it. *A pass* is what every further epoch costs: one epoch
of `update`, in batches of 8,192. It is the median of all passes but the first, of all repetitions,
and measured also where the whole job is extrapolated. The yardstick is a copy that reads and writes
together as many bytes as a pass must move, from memory: its pass over ours is our share of the
copy's bandwidth. It may exceed 1: a copy may have to fetch what it overwrites, an update overwrites
what it has read. The samples come in order, as a pool streams; `make bench-kernels` also shuffles
them. A full history has no passes.

End to end, the ways take turns in fresh processes: medians, with the range of each part, and the
least peak of memory.
"""


def results_page(records: list[tuple[str, Record]]) -> str:
    """The page of all records, given with their file names."""
    return "\n".join([INTRODUCTION, *(_section(name, record) for name, record in records)])


def _section(name: str, record: Record) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in record.versions.items())
    parts = [
        f"## {record.device}\n",
        f"{record.date}, {record.threads} threads, commit {record.commit or 'unknown'}: "
        f"`{record.command}`, recorded in `{name}`.\n",
        f"{versions}.\n",
    ]
    for case in record.cases():
        parts.append(f"### {case.title()}\n\n{markdown_table(header(case), rows(record, case))}\n")
    if record.growth:
        parts.append(
            "### Growth\n\nHow our time grows in one variable, the others fixed; the fitted power "
            "law is dashed in the picture. The exponent's ± is its standard error: how far the "
            "points are from a power law, noise of the machine included.\n\n"
            f"{markdown_table(GROWTH_HEADER, growth_rows(record.growth))}"
            f"\n\n![Times and growth curves]({_picture_of(name)})\n"
        )
    if record.splits:
        parts.append(f"### End to end\n\n{markdown_table(SPLIT_HEADER, split_rows(record))}\n")
    return "\n".join(parts)


def _picture_of(name: str) -> str:
    return f"../{name.removesuffix('.json')}.png"


def readme_block(name: str, record: Record) -> str:
    """The README's table: the headline traversal and the statistics at 100 classes."""
    sections = [BEGIN]
    for case in (HEADLINE, STATISTICS[1]):
        body = []
        for entry in record.measurements:
            if entry.of == case and not entry.unavailable:
                name_of, time, _, times, *passes, memory, exact, _ = row(record, entry)
                name_of = f"**{name_of}**" if name_of == OURS else name_of
                exact = "; ".join(filter(None, (exact, entry.defect)))
                body.append((name_of, time, times, *passes, memory, exact))
        _, time, _, times, *passes, memory, exact, _ = header(case)
        columns = (case.title(), time, times, *passes, memory, exact)
        sections.append(markdown_table(columns, body) + "\n")
    sections.append(
        f"{record.device}, {record.threads} threads, {record.date}, `{record.command}`: "
        f"[all results](docs/benchmarks.md), from `{name}`. `≈`: extrapolated from a smaller run."
    )
    sections.append(END)
    return "\n".join(sections)


def with_block(readme: str, block: str) -> str:
    """``readme`` with the text between the markers replaced, markers included.

    >>> with_block(f"a {BEGIN} old {END} b", "new")
    'a new b'
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README has no block between {BEGIN} and {END}")
    return before + block + after


def load_records(root: Path) -> list[tuple[str, Record]]:
    """The newest record of each device below ``root``, with its path from there, CPUs first."""
    newest: dict[str, tuple[str, Record]] = {}
    for path in sorted(root.glob("benchmarks/results/*.json")):
        if json.loads(path.read_text()).get("schema") != SCHEMA:
            continue  # the record of another command, such as `make gpu`
        record = Record.load(path)
        old = newest.get(record.device)
        if old is None or old[1].date <= record.date:
            newest[record.device] = (path.relative_to(root).as_posix(), record)
    return sorted(newest.values(), key=lambda entry: entry[1].kind)


def write(root: Path) -> None:
    """Rewrite ``docs/benchmarks.md`` and the README's table below ``root``."""
    records = load_records(root)
    page = root / "docs" / "benchmarks.md"
    page.parent.mkdir(exist_ok=True)
    write_atomically(page, results_page(records).encode())
    readme = root / "README.md"
    write_atomically(readme, with_block(readme.read_text(), readme_block(*records[0])).encode())


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
