"""The benchmark's command line, record, table and picture."""

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dynal_fast import files
from dynal_fast.bench import suites, worker
from dynal_fast.bench.cases import GradientCase, StatisticsCase, TraversalCase, as_record
from dynal_fast.bench.command import MAKE_MINUTES, add_bench, plans_for, recorded_command, run
from dynal_fast.bench.competitors.base import OURS
from dynal_fast.bench.picture import draw
from dynal_fast.bench.record import (
    SCHEMA,
    Measurement,
    Record,
    Split,
)
from dynal_fast.bench.table import (
    full_text,
    header,
    pass_ratio,
    ratio,
    row,
    split_row,
    text_table,
)
from dynal_fast.cli import main
from tests.cases.bench_records import STATISTICS, TRAVERSAL, a_record, a_record_of_statistics

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.usefixtures("small_heap")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--full", "--minutes", str(MAKE_MINUTES)], "make bench"),
        (["--full", "--minutes", "18"], "make bench MINUTES=18"),
        (["--full"], "make bench MINUTES=inf"),
        (["--full", "--part", "growth"], "dynal-fast bench --full --part growth"),
        (["--full", "--only", "digits"], "dynal-fast bench --full --only digits"),
        (["--full", "--threads", "1"], "dynal-fast bench --full --threads 1"),
        (["--full", "--limit", "1"], "dynal-fast bench --full --limit 1"),
        (["--full", "--repeats", "1"], "dynal-fast bench --full --repeats 1"),
        (["-k", "10", "-o", "out", "--data-root=data"], "dynal-fast bench -k 10"),
    ],
)
def test_only_a_whole_run_is_called_make_bench(monkeypatch, arguments, command):
    monkeypatch.setattr(sys, "argv", ["dynal-fast", "bench", *arguments])
    parser = argparse.ArgumentParser()
    add_bench(parser.add_subparsers())
    assert recorded_command(parser.parse_args(sys.argv[1:])) == command


def test_the_makefile_has_the_minutes_that_need_no_mention():
    assert f"MINUTES ?= {MAKE_MINUTES}\n" in (ROOT / "Makefile").read_text()


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_bench(parser.add_subparsers())
    return parser.parse_args(["bench", *arguments])


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ([], (20_000, 512, 1000, 2000, 100)),
        (["--n", "70", "--labeled", "0", "--classes", "2"], (70, 512, 70, 0, 2)),
        (["--n", "5", "-k", "5", "--d", "1"], (5, 1, 5, 2000, 100)),
    ],
)
def test_sizes_are_those_given(given, sizes):
    n, d, k, labeled, classes = sizes
    assert [case for case, _ in plans_for(parsed(*given))] == [
        TraversalCase("clustered", n, d, k, labeled=labeled),
        StatisticsCase(n, classes, 10),
        GradientCase(n, classes, d, k),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "-5"], "n must be at least 1, got -5"),
        (["--classes", "1"], "classes must be at least 2, got 1"),
        (["--n", "200", "-k", "500"], "k must be at most n, 200, got 500"),
        (["--features", "EMPTY"], "n must be at least 1, got 0"),
    ],
)
def test_sizes_that_nothing_can_do_are_refused(tmp_path, arguments, message):
    np.save(tmp_path / "empty.npy", np.zeros((0, 8), np.float32))
    arguments = [str(tmp_path / "empty.npy") if word == "EMPTY" else word for word in arguments]
    with pytest.raises(ValueError, match=message):
        run(parsed(*arguments, "-o", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="--output must be a folder, got the file"):
        run(parsed("--n", "60", "-o", str(tmp_path / "out")))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_pool_saved_column_by_column_is_read_row_by_row(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "pool.npy", np.asfortranarray(rows))
    pool, _ = TraversalCase(str(tmp_path / "pool.npy"), 4, 3, 2).load()
    assert pool.is_contiguous()
    assert np.array_equal(pool.numpy(), rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--part", "growth"], "--part needs --full, got --part growth alone"),
        (["--full", "--d", "3"], "--full has its own sizes, got --d too"),
        (
            ["--full", "--only", "nothing"],
            "--only must be in one of these titles: .*; got 'nothing'",
        ),
        (["--features", "x.npy", "--n", "3"], "--features gives all sizes but -k, got --n"),
        (["--labeled-features", "x.npy"], "--labeled-features needs --features"),
        (
            ["--methods", "mine"],
            "--methods must be among these: dynal_fast; .*Greedy, no projection; .*; got 'mine'",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(parsed(*arguments, "-o", str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def made_up(case, method, settings, check=True):
    return Measurement(as_record(case), method.name, [0.5], 1e6)


def test_a_part_goes_into_the_record_of_the_rest_or_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr("dynal_fast.bench.record.commit", lambda: "abc")
    monkeypatch.setattr(suites, "measure", made_up)
    small = ["--n", "60", "--d", "4", "-k", "3", "--labeled", "5", "--classes", "3"]
    output = ["-o", str(tmp_path), "--repeats", "1"]
    for method in (OURS, "BLAS loop"):
        arguments = [*small, "--only", "farthest", "--methods", method, *output]
        monkeypatch.setattr(sys, "argv", ["dynal-fast", "bench", *arguments])
        run(parsed(*arguments))
    (path,) = tmp_path.glob("*.json")
    record = Record.load(path)
    assert [entry.method for entry in record.measurements] == [OURS, "BLAS loop"]
    first, second = record.command.split("; ")
    assert OURS in first
    assert "'BLAS loop'" in second
    record.commit = "abc-dirty"
    assert not record.continues(record)
    record.commit = "another"
    record.save(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"--output has .* of another commit"):
        run(parsed(*arguments))
    assert path.read_bytes() == before


def test_a_figure_is_not_given_up_for_a_reason_why_there_is_none():
    record = a_record()
    before = dataclasses.replace(record.measurements[1])
    record.add(dataclasses.replace(before, seconds=[], unavailable="no time was left"))
    assert record.measurements[1] == before


def test_splits_measured_several_times_give_their_medians():
    runs = [
        Split("case", OURS, {"train": seconds, "pick": 2 * seconds}, memory)
        for seconds, memory in ((1.0, 5e6), (3.0, 1e6), (2.0, 4e6))
    ]
    lost = Split("case", OURS, unavailable="no time was left")
    median = suites.median_split([*runs, lost])
    spread = {"train": [1.0, 3.0], "pick": [2.0, 6.0]}
    assert median == Split("case", OURS, {"train": 2.0, "pick": 4.0}, 1e6, spread=spread)
    assert split_row(median)[3] == "train 2 s (1 s – 3 s), pick 4 s (2 s – 6 s)"
    assert suites.median_split([lost]) == lost


def test_a_record_is_read_back_as_written(tmp_path):
    record = a_record()
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == record
    values = json.loads((tmp_path / "record.json").read_text())
    assert values["schema"] == SCHEMA
    for field in ("device", "date", "command", "threads", "commit", "versions"):
        assert field in values
    values["schema"] = "another"
    (tmp_path / "record.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="schema must be"):
        Record.load(tmp_path / "record.json")


def test_a_record_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "results" / "record.json"
    record = a_record()
    record.save(path)
    before = path.read_text()
    record.command = "another"
    monkeypatch.setattr(files.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28)))
    with pytest.raises(OSError, match="cannot write"):
        record.save(path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_repeated_measurement_replaces_the_earlier_one():
    record = a_record()
    record.add(Measurement(as_record(TRAVERSAL), "BLAS loop", [4.0], 3e6))
    assert len(record.measurements) == 3
    assert ratio(record, record.measurements[1]) == 20


def test_the_table_says_everything():
    record = a_record()
    text = text_table(record, TRAVERSAL)
    assert TRAVERSAL.title() in text
    assert row(record, record.measurements[1]) == (
        "BLAS loop",
        "2 s",
        "",
        "10",
        "3 MB",
        "exact",
        "",
    )
    assert "n/a: no" in text
    assert "200 ms" in text
    assert "100 ms – 300 ms" in text
    assert "pick 250 ms" in full_text(record)


def test_the_table_of_statistics_has_two_columns_of_a_pass():
    record = a_record_of_statistics()
    assert header(STATISTICS)[3:6] == ("× ours", "a pass", "× ours")
    assert "a pass" not in header(TRAVERSAL)
    assert [pass_ratio(record, entry) for entry in record.measurements[:3]] == [1, 0.5, 8]
    ours, copy, in_place, history, compiled = (row(record, m) for m in record.measurements)
    assert ours[1:6] == ("100 ms", "", "1", "3 ms", "1")
    assert copy[4:6] == ("1.5 ms", "0.5")
    assert in_place[1:6] == ("≈ 100 ms", "", "≈ 1", "24 ms", "8")  # a pass is measured
    assert history[3:6] == ("4", "", "")
    assert compiled == (compiled[0], "n/a: no", "", "", "", "", "", "", "slow")
    assert "a pass" in text_table(record, STATISTICS)
    assert "a pass" not in text_table(a_record(), TRAVERSAL)


def test_a_record_without_passes_is_still_read(tmp_path):
    record = a_record_of_statistics()
    record.save(tmp_path / "record.json")
    values = json.loads((tmp_path / "record.json").read_text())
    for entry in values["measurements"]:
        del entry["pass_seconds"]
    (tmp_path / "record.json").write_text(json.dumps(values))
    old = Record.load(tmp_path / "record.json")
    assert old.measurements[0].median_pass is None
    assert row(old, old.measurements[0])[1:6] == ("100 ms", "", "1", "", "")


def words_of(record, path):
    draw(record, path)
    texts = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return [text.text for text in texts if text.text]


def test_the_picture_is_drawn(tmp_path):
    words = words_of(a_record(), tmp_path / "record.svg")
    assert {OURS, "time / ours", "seconds", "1×"} <= set(words)
    drawn = (tmp_path / "record.svg").read_text()
    bars = a_record().measurements
    assert drawn.count('<rect class="area base') == sum(bool(bar.extrapolated) for bar in bars)


def test_the_picture_compares_passes_where_others_stream(tmp_path):
    record = a_record_of_statistics()
    passes = words_of(record, tmp_path / "record.svg")
    record.measurements = [record.measurements[0], record.measurements[3]]
    whole = words_of(record, tmp_path / "record.svg")
    assert "a pass / ours" in passes
    assert "time / ours" in whole
    assert any(text.endswith("4 epochs: a pass") for text in passes)
    assert [text for text in passes if re.fullmatch(r"\d+(\.\d+)?×", text)][-3:] == [
        "8×",
        "0.5×",
        "1×",
    ]
    assert [text for text in whole if re.fullmatch(r"\d+(\.\d+)?×", text)][-2:] == ["4×", "1×"]


def test_a_record_without_comparisons_or_curves_has_no_picture(tmp_path):
    record = a_record()
    record.measurements, record.growth = record.measurements[:1], []
    assert draw(record, tmp_path / "record.svg") == []
    assert not (tmp_path / "record.svg").exists()


def test_the_command_line_measures_a_users_own_embeddings(tmp_path, monkeypatch, capsys):
    def in_this_process(function, arguments, threads, timeout, lock):
        assert function == "dynal_fast.bench.worker:measure_method"
        assert lock == Path("lock")
        return worker.measure_method(**arguments)

    monkeypatch.setattr("dynal_fast.bench.measure.call", in_this_process)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("pool.npy", rng.standard_normal((80, 5), dtype=np.float32))
    np.save("labeled.npy", rng.standard_normal((9, 5), dtype=np.float32))
    features = ["--features", "pool.npy", "--labeled-features", "labeled.npy", "-k", "6"]
    methods = ["--methods", OURS, "BLAS loop"]
    assert main(["bench", *features, "--lock", "lock", "-o", "out", *methods]) == 0
    printed = capsys.readouterr().out
    assert "6 of 80 × 5, 9 labeled" in printed
    assert "certified" in printed
    (path,) = Path("out").glob("*.json")
    record = Record.load(path)
    assert [entry.method for entry in record.measurements] == [OURS, "BLAS loop"]
    assert record.measurements[1].exactness["agreement"] == 1
