"""The pages with results: their tables come from the committed records, their text from hands."""

import shutil
from pathlib import Path

import pytest

from benchmarks.pages import results, tables_of, write
from benchmarks.pages.markers import fill
from dynal_fast.bench.record import file_name
from dynal_fast.bench.suites import STATISTICS as STATISTICS_CASES
from tests.cases.bench_records import TRAVERSAL, a_record, a_record_of_statistics

ROOT = Path(__file__).parent.parent
PAGES = [path.relative_to(ROOT) for path in tables_of(ROOT)]


@pytest.fixture
def copy(tmp_path):
    """The records and pages of the source tree, to be written to."""
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    return tmp_path


def test_the_committed_pages_are_what_the_committed_records_give(copy):
    assert write(copy) == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_only_what_is_between_markers_is_written(copy, page):
    path = copy / page
    text = path.read_text()
    assert text.count("<!-- begin: ") == len(tables_of(copy)[path]) > 0
    head, _, rest = text.partition("-->\n")
    path.write_text(f"{head}-->\nan old figure\n{rest}\nwritten by hand\n")
    assert write(copy) == [path]
    assert path.read_text() == f"{text}\nwritten by hand\n"
    assert write(copy) == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_that_lacks_a_marker_is_named_and_nothing_is_written(copy, page):
    path, before = copy / page, {other: (copy / other).read_bytes() for other in PAGES}
    name = next(iter(tables_of(copy)[path]))
    text = path.read_text().replace(f"<!-- begin: {name} -->\n", "")
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{page} must have, once each, <!-- begin: {name} -->"):
        write(copy)
    assert path.read_text() == text
    assert all((copy / other).read_bytes() == before[other] for other in PAGES if other != page)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- begin: a -->\n", "once each, <!-- begin: a --> and below it <!-- end: a -->"),
        ("<!-- end: a -->\n<!-- begin: a -->\n", "must have, once each, <!-- begin: a -->"),
        ("<!-- begin: a -->\n<!-- end: a -->\n<!-- end: a -->\n", "must have, once each"),
        ("<!-- begin: a -->\n<!-- end: a -->\n<!-- end: b -->\n", "a marker for b: the records"),
    ],
)
def test_markers_without_their_table_or_their_pair_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        fill(text, {"a": "table"})


def test_the_records_on_the_page_are_of_committed_code():
    records = results.load_records(ROOT)
    assert records
    for name, record in records:
        assert record.commit
        assert not record.commit.endswith("-dirty")
        assert (ROOT / name).name == file_name(record)


def test_the_newest_record_of_a_device_is_read_and_those_of_other_commands_are_not(tmp_path):
    older, newer = a_record(), a_record()
    older.date, newer.date = "2026-01-01", "2026-01-02"
    for record in (newer, older):
        record.save(tmp_path / "benchmarks" / "results" / f"{record.date}.json")
    (tmp_path / "benchmarks" / "results" / "other.json").write_text("{}")
    assert results.load_records(tmp_path) == [("benchmarks/results/2026-01-02.json", newer)]


def test_the_tables_of_a_record():
    record = a_record()
    tables = results.page_tables([("benchmarks/results/record.json", record)])
    assert record.device in tables["machines"]
    assert f"### {TRAVERSAL.title()}\n" in tables["farthest-first"]
    assert "| BLAS loop | 2 s |  | 10 | 3 MB | exact |  |" in tables["farthest-first"]
    assert tables["pool-statistics"] == ""
    assert "../benchmarks/results/record.svg" in tables["growth"]
    assert "| one cycle | dynal_fast | 1.25 s |" in tables["end-to-end"]


def test_where_devices_are_many_each_table_says_which():
    records = [("a.json", a_record()), ("b.json", a_record())]
    records[1][1].device = "another"
    tables = results.page_tables(records)
    assert f"### {TRAVERSAL.title()} (another)\n" in tables["farthest-first"]


def test_the_table_of_the_readme():
    headline = STATISTICS_CASES[1]
    table = results.readme_table("record.json", a_record_of_statistics(headline))
    assert f"| {headline.title()} | time | × ours | a pass | × ours | peak memory |" in table
    assert "| **dynal_fast** | 100 ms | 1 | 3 ms | 1 | 2 MB |  |" in table
