"""``dynal-fast select``: what it picks and writes, and what it refuses in one line."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first
from dynal_fast.cli import main
from tests.test_cli import dynal_fast as run_command
from tests.test_cli import refused

pytestmark = pytest.mark.usefixtures("one_thread")
SELECT_TEXTS = ("--labeled", "--key", "--labeled-key", "--columns", "--metric")
FEATURES = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "features.npy", FEATURES)
    np.save(tmp_path / "ids.npy", np.array([3, 8]))
    np.save(tmp_path / "labeled.npy", FEATURES[:4] + 1)
    return tmp_path


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("labeled", [None, "ids", "labeled"])
def test_select_writes_the_picks_of_farthest_first(files, capsys, metric, labeled):
    options = ["--labeled", str(files / f"{labeled}.npy")] if labeled else []
    command = ["select", str(files / "features.npy"), "-k", "7", "-o", str(files / "picks.npy")]
    assert main([*command, "--metric", metric, "-q", *options]) == 0
    given = np.load(files / f"{labeled}.npy") if labeled else None
    expected = farthest_first(FEATURES, 7, labeled=given, metric=metric)
    picks = np.load(files / "picks.npy")
    assert picks.dtype == np.int64
    assert picks.tolist() == expected.indices.tolist()
    assert f"radius {float(expected.radius):.6g}" in capsys.readouterr().out


def test_select_in_a_subprocess_is_quiet_and_starts_where_it_is_told(files, capsys):
    target = files / "picks.npy"
    given = "select", files / "features.npy", "-k", 5, "-o", target
    result = run_command(*given, "--start", 9)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert np.load(target)[0] == 9

    def drawn(seed):
        assert main([*map(str, given), "-q", "--seed", str(seed)]) == 0
        return np.load(target).tolist()

    assert drawn(1) == drawn(1)
    assert len({drawn(seed)[0] for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features.npy", "-k", "61"], "k must be"),
        (["features.npy", "-k", "-1"], "k must be"),
        (["features.npy", "-k", str(2**70)], "k must be"),
        (["missing.npy", "-k", "3"], "missing.npy cannot be read: No such file"),
        (["text.npy", "-k", "3"], "text.npy is text, and no column of it holds numbers"),
        (["objects.npy", "-k", "3"], "objects.npy holds Python objects"),
        (["several.npz", "-k", "3"], "several.npz holds several arrays: 'a' (60, 5) float32, 'b'"),
        (["features.npy", "-k", "3", "--labeled", "several.npz"], "several.npz holds several arr"),
        (["features.npy", "-k", "3", "--labeled", "features.npy"], "--labeled must not be a file"),
        (["flat.npy", "-k", "3"], "flat.npy must have shape (samples, features), got (4,)"),
        (["nan.npy", "-k", "1"], "pool"),
        (["features.npy", "-k", "3", "--labeled", "wide.npy"], "labeled"),
        (["features.npy", "-k", "3", "--labeled", "beyond.npy"], "labeled"),
        (["features.npy", "-k", "3", "--start", "60"], "start must"),
        (["features.npy", "-k", "3", "--start", "1", "--seed", "2"], "not allowed with"),
        (["features.npy", "-k", "3", "--metric", "manhattan"], "invalid choice: 'manhattan'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_select_refuses_bad_files_in_one_line(files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    np.save("flat.npy", FEATURES[0, :4])
    np.savez("several.npz", a=FEATURES, b=FEATURES)
    np.save("nan.npy", np.full((3, 2), np.nan, np.float32))
    np.save("wide.npy", np.ones((2, 6), np.float32))
    np.save("beyond.npy", np.array([60]))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("text.npy").write_text("not an array")
    assert message in refused(capsys, "select", "-q", "-o", "picks.npy", *arguments)
    assert not Path("picks.npy").exists()


def test_select_cannot_write_is_exit_code_1(files, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    target = files / "picks.npy"
    assert main(["select", str(files / "features.npy"), "-k", "2", "-q", "-o", str(target)]) == 1
    err = capsys.readouterr().err
    assert "cannot write" in err
    assert err.count("\n") == 1
    assert sorted(os.listdir(files)) == ["features.npy", "ids.npy", "labeled.npy"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/picks.npy", "--output must be in a folder that exists"),
        ("features.npy/picks.npy", "--output must be in a folder that exists"),
        ("features.npy", "--output must not be a file that is read"),
        (".", "--output must be a file, got the folder"),
    ],
)
def test_select_refuses_its_output_before_it_selects(files, capsys, monkeypatch, output, message):
    monkeypatch.setattr("dynal_fast.ops.farthest_first.farthest_first", None)
    before = (files / "features.npy").read_bytes()
    command = ["select", str(files / "features.npy"), "-k", "2", "-q", "-o", str(files / output)]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert (files / "features.npy").read_bytes() == before


@pytest.mark.parametrize("kind", ["/dev/null", "pipe", "link to a device"])
def test_select_writes_only_regular_files(files, capsys, kind):
    target = Path(kind) if kind.startswith("/") else files / "picks.npy"
    if kind == "pipe":
        os.mkfifo(target)
    elif kind == "link to a device":
        target.symlink_to("/dev/null")
    before = os.stat(target).st_mode
    line = refused(capsys, "select", "-q", files / "features.npy", "-k", 2, "-o", target)
    assert f"cannot write {target}: it is a " in line
    assert os.stat(target).st_mode == before


def test_select_writes_through_a_link_and_keeps_permissions(files):
    target, link = files / "target.npy", files / "link.npy"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("target.npy")
    assert main(["select", "-q", str(files / "features.npy"), "-k", "2", "-o", str(link)]) == 0
    assert link.is_symlink()
    assert np.load(target).tolist() == farthest_first(FEATURES, 2).indices.tolist()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    line = ["select", "-q", str(link), "-k", "2", "-o", str(target)]
    assert main(line) == 2  # the link and its target are one file


@pytest.mark.parametrize("file", ["features.npy", "parts"])
def test_an_interruption_writes_nothing(files, capsys, monkeypatch, file):
    (files / "parts").mkdir()
    for name in "ab":
        np.save(files / "parts" / f"{name}.npy", FEATURES)
    picks = files / "picks.npy"
    picks.write_bytes(b"old")
    before = sorted(os.listdir(files))

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("dynal_fast.ops.farthest_first.farthest_first", interrupt)
    assert main(["select", "-q", str(files / file), "-k", "2", "-o", str(picks)]) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", "dynal-fast: interrupted\n")
    assert picks.read_bytes() == b"old"
    assert sorted(os.listdir(files)) == before


@pytest.mark.parametrize("error", [MemoryError(), TypeError("pool must be numbers")])
def test_what_the_traversal_raises_is_one_line(files, capsys, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("dynal_fast.ops.farthest_first.farthest_first", fail)
    command = ["select", "-q", str(files / "features.npy"), "-k", "2", "-o", str(files / "p.npy")]
    assert main(command) == (1 if isinstance(error, MemoryError) else 2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "pool must be numbers" in err or "does not fit into memory" in err


EMPTY = [
    *(["select", "f.npy", "-k", "1", "-o", "p.npy", option, ""] for option in SELECT_TEXTS),
    ["select", "f.npy", "-k", "1", "-o", ""],
    ["select", "f.npy", "-k", "1", "-o", "p.npy", "--labeled="],
    ["select", "", "-k", "1", "-o", "p.npy"],
    ["select", "f.npy", " ", "-k", "1", "-o", "p.npy"],
    *(["run", "-o", "x", option, ""] for option in ("--data", "--data-root", "--strategies")),
    *(["run", "-o", "x", option, ""] for option in ("--device", "--preset", "--option")),
    ["run", "-o", ""],
    ["run", "", "-o", "x"],
    ["demo", "-o", ""],
    ["demo-2d", "-o", ""],
    ["plot", ""],
    ["plot", "x", "-o", ""],
    ["report", "", "-o", "x"],
    ["report", "x", "-o", ""],
    *(["bench", option, ""] for option in ("-o", "--features", "--labeled-features", "--lock")),
    *(["bench", option, ""] for option in ("--only", "--methods", "--data-root")),
]


@pytest.mark.parametrize("arguments", EMPTY, ids=lambda arguments: " ".join(arguments))
def test_an_empty_text_is_no_choice(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    np.save("f.npy", FEATURES)
    line = refused(capsys, *arguments)
    assert "must not be empty" in line or "got ''" in line
    assert os.listdir(tmp_path) == ["f.npy"]


def test_every_format_selects_the_same(tmp_path, capsys):
    from tests.cases.embedding_files import MATRIX, write_all

    expected = farthest_first(MATRIX, 6).indices.tolist()
    for name, path in write_all(tmp_path).items():
        picks = tmp_path / "picks.out"
        assert main(["select", "-q", str(path), "-k", "6", "-o", str(picks)]) == 0, name
        assert np.load(picks).tolist() == expected, name
        out = capsys.readouterr().out
        assert "6 picks of 50 samples with 6 features" in out
        picks.unlink()


def test_a_key_and_columns_reach_the_readers(files):
    np.savez(files / "a.npz", x=FEATURES, y=np.arange(60))
    names = ",".join(["id", *(f"e{i}" for i in range(5))])
    rows = np.column_stack([np.arange(60), FEATURES])
    np.savetxt(files / "a.csv", rows, delimiter=",", header=names, comments="")
    picks = str(files / "picks.npy")
    expected = farthest_first(FEATURES, 3).indices.tolist()
    for arguments in (["a.npz", "--key", "x"], ["a.csv", "--columns", "e*"]):
        command = ["select", "-q", str(files / arguments[0]), *arguments[1:], "-k", "3"]
        assert main([*command, "-o", picks]) == 0
        assert np.load(picks).tolist() == expected


@pytest.fixture
def parts(tmp_path):
    for name, part in (("a", FEATURES[:25]), ("b", FEATURES[25:])):
        np.save(tmp_path / f"{name}.npy", part)
    (tmp_path / "out").mkdir()
    return tmp_path


def test_picks_of_several_files_say_which_file_and_row(parts, capsys):
    expected = farthest_first(FEATURES, 6)
    indices = expected.indices.tolist()
    for given in ([parts], [f"{parts}/*.npy"], sorted(parts.glob("*.npy"))):
        for ending in ("npy", "csv", "txt"):
            picks = parts / "out" / f"picks.{ending}"
            assert main(["select", "-q", *map(str, given), "-k", "6", "-o", str(picks)]) == 0
            table = picks.with_suffix(".csv" if ending == "csv" else ".files.csv")
            assert str(table) in capsys.readouterr().out
            lines = [line.split(",") for line in table.read_text().splitlines()]
            assert lines[0] == ["position", "file", "row", "distance"]
            assert [int(line[0]) for line in lines[1:]] == indices
            for index, (_, file, row, distance) in zip(indices, lines[1:], strict=True):
                assert np.array_equal(np.load(file)[int(row)], FEATURES[index])
                assert np.float32(distance) == expected.distances[indices.index(index)].item()
            if ending == "npy":
                assert np.load(picks).tolist() == indices
            if ending == "txt":
                assert np.loadtxt(picks, dtype=int).tolist() == indices


def test_picks_go_on_from_the_table_of_picks(parts, capsys):
    def select(k, output, *options):
        command = ["select", "-q", str(parts), "-k", str(k), "-o", str(parts / "out" / output)]
        assert main([*command, *options]) == 0

    whole = farthest_first(FEATURES, 9).indices.tolist()
    for first in ("first.csv", "first.npy", "first.txt"):
        select(4, first)
        select(5, "second.npy", "--labeled", str(parts / "out" / first))
        assert np.load(parts / "out" / "second.npy").tolist() == whole[4:]
    (parts / "out" / "moved.csv").write_text("file,row\nelsewhere/a.npy,3\nb.npy,0\n")
    select(2, "third.npy", "--labeled", str(parts / "out" / "moved.csv"))
    expected = farthest_first(FEATURES, 2, labeled=np.array([3, 25])).indices.tolist()
    assert np.load(parts / "out" / "third.npy").tolist() == expected
    capsys.readouterr()
    for content, message in (
        ("file,row\nc.npy,3\n", "the pool has no file 'c.npy'"),
        ("file,row\na.npy,25\n", "a.npy has 25 rows, got row 25"),
    ):
        (parts / "out" / "wrong.csv").write_text(content)
        options = ["--labeled", parts / "out" / "wrong.csv", "-o", parts / "out" / "x.npy"]
        assert message in refused(capsys, "select", "-q", parts, "-k", 1, *options)


def test_picks_are_not_put_among_the_files_that_are_read(parts, capsys):
    for output in (parts / "picks.npy", parts / "a.npy"):
        line = refused(capsys, "select", "-q", parts, "-k", 2, "-o", output)
        assert "--output must not be" in line
    files = [parts / "a.npy", parts / "b.npy"]
    (parts / "picks.files.csv").symlink_to("/dev/full")
    line = refused(capsys, "select", "-q", *files, "-k", 2, "-o", parts / "picks.npy")
    assert "picks.files.csv: it is a device" in line
    assert not (parts / "picks.npy").exists()


def _write_labeled(folder, name, content):
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
    elif name.endswith(".parquet"):
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.table({"i": content}), path)
    elif name.endswith(".pt"):
        torch.save(torch.from_numpy(content), path)
    else:
        np.save(path, content)
    return path


MASK = np.isin(np.arange(60), [3, 8])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.npy", np.array([3, 8])),
        ("i.npy", np.array([8, 3], np.uint8)),
        ("i.npy", np.array([[3], [8]])),
        ("i.pt", np.array([3, 8])),
        ("i.parquet", np.array([3, 8])),
        ("mask.npy", MASK),
        ("mask.pt", MASK),
        ("i.txt", "3\n8\n"),
        ("i.csv", "i\n3\n8\n"),
        ("i.csv", "3.0\r\n8.0\r\n"),
        ("picks.csv", "row,distance\n3,inf\n8,1.5\n"),
        ("mask.txt", "".join(f"{value}\n" for value in MASK)),
        ("mask.csv", "labeled\n" + "".join(f"{value}\n".lower() for value in MASK)),
    ],
)
def test_labeled_rows_are_read_from_any_format(files, name, content):
    pytest.importorskip("pyarrow")
    path = _write_labeled(files, name, content)
    picks = str(files / "picks.npy")
    command = ["select", "-q", str(files / "features.npy"), "--labeled", str(path), "-k", "4"]
    assert main([*command, "-o", picks]) == 0
    expected = farthest_first(FEATURES, 4, labeled=np.array([3, 8])).indices.tolist()
    assert np.load(picks).tolist() == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.npy", np.array([3.0, 8.0]), "must hold row numbers (integers), got float64"),
        ("i.npy", np.array([3, -1]), "holds row -1, but labeled rows are from 0 to 59"),
        ("i.npy", np.array([2**63], np.uint64), f"holds row {2**63}"),
        ("i.npy", np.array([60]), "holds row 60"),
        ("mask.npy", MASK[:20], "must have a boolean for each of the 60 rows, got 20"),
        ("mask.npy", MASK.astype(np.uint8), "save it as booleans if it is a mask"),
        ("mask.txt", "1\n0\n" * 30, "save it as booleans if it is a mask"),
        ("i.txt", "3\nx\n", "row 1: expected a row number of the pool, got 'x'"),
        ("i.txt", "3.5\n", "row 0: expected a row number of the pool, got '3.5'"),
        ("i.txt", "nan\n3\n", "row 0: expected a row number"),
        ("i.txt", "1e400\n3\n", "row 0: expected a row number"),
        ("i.txt", "", "is empty"),
        ("wide.csv", "1,2\n3,4\n", "labeled must have the pool's 5 dimensions, got 2"),
    ],
)
def test_labeled_rows_that_are_wrong_are_one_line(files, capsys, name, content, message):
    path = _write_labeled(files, name, content)
    options = ["--labeled", path, "-k", 2, "-o", files / "picks.npy"]
    assert message in refused(capsys, "select", "-q", files / "features.npy", *options)
    assert not (files / "picks.npy").exists()


def test_labeled_embeddings_are_read_from_any_format(files):
    given = (FEATURES[:4] + 1).astype(np.float32)
    np.savez(files / "l.npz", given, other=np.arange(3))
    torch.save(torch.from_numpy(given), files / "l.pt")
    expected = farthest_first(FEATURES, 4, labeled=given).indices.tolist()
    for options in (["l.npz", "--labeled-key", "arr_0"], ["l.pt"]):
        command = ["select", "-q", str(files / "features.npy"), "-k", "4"]
        command += ["--labeled", str(files / options[0]), *options[1:]]
        assert main([*command, "-o", str(files / "picks.npy")]) == 0
        assert np.load(files / "picks.npy").tolist() == expected


@pytest.mark.parametrize("k", [0, 59, 60])
def test_all_and_none_can_be_picked(files, capsys, k):
    picks = files / "picks.npy"
    assert main(["select", "-q", str(files / "features.npy"), "-k", str(k), "-o", str(picks)]) == 0
    assert len(set(np.load(picks).tolist())) == k
    capsys.readouterr()
    options = ["--labeled", files / "ids.npy", "-k", 59, "-o", picks]
    assert "k must be" in refused(capsys, "select", "-q", files / "features.npy", *options)


@pytest.mark.parametrize("seed", ["x", "1.5", str(2**64), str(-(2**63) - 1)])
def test_select_refuses_what_is_no_seed(files, capsys, seed):
    command = ["select", str(files / "features.npy"), "-k", "2", "-o", str(files / "picks.npy")]
    with pytest.raises(SystemExit, match="2"):
        main([*command, f"--seed={seed}"])
    assert f"must be an integer from -2^63 to 2^64 - 1, got {seed}" in capsys.readouterr().err
    assert main([*command, "-q", "--seed=-7"]) == 0


def test_select_reads_no_zip_that_is_not_one(files, capsys):
    (files / "broken.npy").write_bytes(b"PK\x03\x04 and no archive")
    command = ["select", str(files / "broken.npy"), "-k", "2", "-o", str(files / "picks.npy")]
    assert main(command) == 2
    assert "cannot be read as a zip archive" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--features", "--labeled-features"])
def test_the_benchmark_reads_its_files_by_the_same_rules(files, capsys, option):
    (files / "a.csv").write_text("1,2\n")
    (files / "cut.npy").write_bytes((files / "features.npy").read_bytes()[:-1])
    for name, message in (("a.csv", "must be a .npy file"), ("cut.npy", "is cut short")):
        options = [option, files / name]
        if option == "--labeled-features":
            options += ["--features", files / "features.npy"]
        assert message in refused(capsys, "bench", "-o", files / "x", *options)
    assert not (files / "x").exists()
