"""The tables of ``docs/benchmarks.md`` and the README, from ``dynal-fast bench``'s records."""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pages.markers import markdown_table
from dynal_fast.bench.cases import StatisticsCase
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.record import SCHEMA, Record
from dynal_fast.bench.suites import HEADLINE, STATISTICS
from dynal_fast.bench.table import (
    GROWTH_HEADER,
    SPLIT_HEADER,
    growth_rows,
    header,
    row,
    rows,
    split_rows,
)

Records = list[tuple[str, Record]]  # with the path of each below the root, the CPUs' first


def load_records(root: Path) -> Records:
    """Return the newest record of each device below ``root``."""
    newest: dict[str, tuple[str, Record]] = {}
    for path in sorted(root.glob("benchmarks/results/*.json")):
        if json.loads(path.read_text()).get("schema") != SCHEMA:
            continue  # the record of another command, such as `make gpu`
        record = Record.load(path)
        old = newest.get(record.device)
        if old is None or old[1].date <= record.date:
            newest[record.device] = (path.relative_to(root).as_posix(), record)
    return sorted(newest.values(), key=lambda entry: entry[1].kind)


def page_tables(records: Records) -> dict[str, str]:
    """Return the tables of ``docs/benchmarks.md`` by name."""
    return {
        "machines": "\n\n".join(_machine(name, record) for name, record in records),
        "farthest-first": "\n\n".join(_cases(records, statistics=False)),
        "pool-statistics": "\n\n".join(_cases(records, statistics=True)),
        "growth": "\n\n".join(
            f"{markdown_table(GROWTH_HEADER, growth_rows(record.growth))}\n\n"
            f"![Times and growth curves, {record.device}](../{name.removesuffix('.json')}.svg)"
            for name, record in records
            if record.growth
        ),
        "end-to-end": "\n\n".join(
            markdown_table(SPLIT_HEADER, split_rows(record))
            for _, record in records
            if record.splits
        ),
    }


def _machine(name: str, record: Record) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in record.versions.items())
    return (
        f"**{record.device}**, {record.threads} threads, {record.date}, commit "
        f"{record.commit or 'unknown'}: `{record.command}`, recorded in `{name}`, with {versions}."
    )


def _cases(records: Records, statistics: bool) -> Iterator[str]:
    for _, record in records:
        device = f" ({record.device})" if len(records) > 1 else ""
        for case in record.cases():
            if isinstance(case, StatisticsCase) == statistics:
                table = markdown_table(header(case), rows(record, case))
                yield f"### {case.title()}{device}\n\n{table}"


def readme_table(name: str, record: Record) -> str:
    """Return the README's tables: the headline traversal and the statistics of 100 classes."""
    parts = []
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
        parts.append(markdown_table(columns, body))
    parts.append(
        f"{record.device}, {record.threads} threads, {record.date}, `{record.command}`: "
        f"[all results](docs/benchmarks.md), from `{name}`. `≈`: extrapolated from a smaller run."
    )
    return "\n\n".join(parts)
