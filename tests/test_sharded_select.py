"""`select` over shards of files, and checkpoints: ended at any time, with any number of ranks."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from dynal_fast import farthest_first
from dynal_fast.cli import build_parser, main
from dynal_fast.collective.in_memory import run_ranks
from dynal_fast.embeddings.many_ranks import select_shards
from dynal_fast.embeddings.shards import BLOCK, load_shards, pieces_of
from dynal_fast.embeddings.source import Wanted
from dynal_fast.ops.farthest_first.sharded import checkpoint, part, traversal
from dynal_fast.ops.farthest_first.sharded.checkpoint import Checkpoint
from tests.cases.farthest_first import clustered
from tests.gloo_ranks import CONTEXT


class Killed(BaseException):
    pass


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    pool = clustered(900, 8).astype(np.float16)
    for name, rows in zip("abcd", np.split(pool, [300, 310, 700]), strict=True):
        np.save(folder / f"{name}.npy", rows)
    np.save(tmp_path / "labeled.npy", np.arange(0, 900, 40))
    return tmp_path


def arguments(files, *more):
    return build_parser().parse_args(
        ["select", str(files / "features"), "-o", str(files / "picks.npy"), "-q", "-k", "90", *more]
    )


def picks_of(files, *more):
    assert main(["select", str(files / "features"), "-o", str(files / "p.npy"), "-q", *more]) == 0
    return np.load(files / "p.npy")


def test_pieces_are_the_pool_once_in_order():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(0, 3 * BLOCK, size=int(rng.integers(1, 7))).tolist()
        ranks = int(rng.integers(1, 9))
        found = [piece for own in pieces_of(sizes, ranks) for piece in own]
        rows = [(file, row) for file, begin, end in found for row in (begin, end)]
        assert rows == sorted(rows)
        assert [sum(e - b for f, b, e in found if f == file) for file in range(len(sizes))] == sizes
        assert all(begin % BLOCK == 0 for _, begin, _ in found)


@pytest.mark.parametrize(("sizes", "ranks"), [([BLOCK * 8] * 5, 4), ([BLOCK * 40, 10, 10, 10], 4)])
def test_files_that_do_not_divide_are_cut(sizes, ranks):
    parts = [sum(end - begin for _, begin, end in own) for own in pieces_of(sizes, ranks)]
    assert max(parts) <= 1.3 * sum(sizes) / ranks


def test_files_that_divide_stay_whole():
    assert pieces_of([100, 90, 110, 100], 2) == [
        [(0, 0, 100), (1, 0, 90)],
        [(2, 0, 110), (3, 0, 100)],
    ]


def test_checksums_do_not_depend_on_the_cut(tmp_path):
    rows = clustered(3 * BLOCK + 5, 2)
    np.save(tmp_path / "pool.npy", rows)

    def sums(ranks):
        shards = [load_shards(tmp_path, Wanted(), rank, ranks) for rank in range(ranks)]
        return sum(shard.checksums()[0] for shard in shards) % 2**40

    whole = sums(1)
    assert sums(2) == sums(3) == sums(7) == whole
    rows[[3, BLOCK + 3]] = rows[[BLOCK + 3, 3]]
    np.save(tmp_path / "pool.npy", rows)
    assert sums(2) != whole


@pytest.mark.parametrize("more", [[], ["--labeled", "labeled.npy"], ["--seed", "5"]])
def test_ranks_select_what_one_process_does(files, more):
    more = [str(files / one) if one.endswith(".npy") else one for one in more]
    want = picks_of(files, "-k", "90", *more)
    for ranks in (2, 5):
        found = run_ranks(ranks, lambda group: select_shards(arguments(files, *more), group))
        for got, pool in found:
            np.testing.assert_array_equal(got.indices, want)
            assert pool.locate(305)[0].name == "b.npy"


def small(monkeypatch):
    monkeypatch.setattr(traversal, "GATHERED", 9)
    monkeypatch.setattr(part, "SMALL_FRONT", 50)


@pytest.mark.parametrize("more", [[], ["--labeled", "labeled.npy"], ["--start", "17"]])
def test_a_killed_selection_goes_on_with_any_number_of_ranks(files, more, monkeypatch):
    small(monkeypatch)
    more = [str(files / one) if one.endswith(".npy") else one for one in more]
    want = picks_of(files, "-k", "90", *more)
    state = ["--checkpoint", str(files / "state"), "--checkpoint-every", "0"]
    given = arguments(files, *more, *state)
    written = []
    write = checkpoint.write_atomically

    def killed_after(most):
        def write_or_die(path, content):
            if len(written) >= most:
                raise Killed
            written.append(path.name)
            write(path, content)

        return write_or_die

    for ranks, most in ((3, 1), (2, 6), (4, 9), (1, 7)):
        written.clear()
        monkeypatch.setattr(checkpoint, "write_atomically", killed_after(most))
        with pytest.raises(Killed):
            run_ranks(ranks, lambda group: select_shards(given, group))
    monkeypatch.setattr(checkpoint, "write_atomically", write)
    begun = len(np.load(files / "state" / "picks.npz")["indices"])
    assert 0 < begun < 90
    for got, _ in run_ranks(3, lambda group: select_shards(given, group)):
        np.testing.assert_array_equal(got.indices, want)
    names = {path.name for path in (files / "state").iterdir()}
    assert len(names) == 5  # the picks, and the bounds of four files


def test_a_checkpoint_of_something_else_is_refused(files, monkeypatch, capsys):
    small(monkeypatch)
    state = ["--checkpoint", str(files / "state"), "--checkpoint-every", "0"]
    picks_of(files, "-k", "30", *state)
    for change, message in (
        (["-k", "31"], "its k is 30, got 31"),
        (["-k", "30", "--metric", "cosine"], "its metric is euclidean, got cosine"),
        (["-k", "30", "--labeled", str(files / "labeled.npy")], "its labeled is none, got 1 files"),
    ):
        command = ["select", str(files / "features"), "-o", str(files / "p.npy"), "-q"]
        assert main([*command, *change, *state]) == 2
        assert message in capsys.readouterr().err
    rows = np.load(files / "features" / "c.npy")
    rows[7] += 1
    np.save(files / "features" / "c.npy", rows)
    assert main([*command, "-k", "30", *state]) == 2
    assert "its file 2, c.npy is (390, 8) float16 with checksum" in capsys.readouterr().err
    (files / "state" / "picks.npz").write_bytes(b"PK")
    assert main([*command, "-k", "30", *state]) == 2
    assert "picks.npz cannot be read" in capsys.readouterr().err
    (files / "state" / "picks.npz").unlink()  # as the message says; nobody knows the bounds' picks
    np.testing.assert_array_equal(picks_of(files, "-k", "30", *state), picks_of(files, "-k", "30"))
    assert main([*command, "-k", "30", "--checkpoint", str(files / "features")]) == 2
    assert "--checkpoint must not be a folder that is read" in capsys.readouterr().err


def test_files_of_one_name_are_told_from_each_other(tmp_path, capsys):
    pool = clustered(200, 4)
    for folder, rows in (("g", pool[:100]), ("h", pool[100:])):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", rows)
    np.savez(tmp_path / "labeled.npz", a=np.array([1]), b=np.array([150]))
    paths = [str(tmp_path / folder / "x.npy") for folder in "gh"]
    command = ["select", *paths, "-k", "5", "-q", "-o", str(tmp_path / "p.npy")]
    command += ["--labeled", str(tmp_path / "labeled.npz"), "--checkpoint-every", "0"]
    command += ["--checkpoint", str(tmp_path / "state")]
    assert main([*command, "--labeled-key", "a"]) == 0
    assert main([*command, "--labeled-key", "b"]) == 2
    assert "its labeled_key is a, got b" in capsys.readouterr().err
    np.save(paths[0], pool[:100] + 1)
    assert main([*command, "--labeled-key", "a"]) == 2
    assert "its file 0, x.npy is" in capsys.readouterr().err


def torchrun(files, *more):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "dynal_fast", "select", str(files / "features"), "-o", str(files / "r.npy")]
    return [*command, *more]


@pytest.mark.slow
def test_torchrun_is_interrupted_and_goes_on(files):
    """Ctrl-C, which reaches the whole process group, ends all ranks; the same command ends well."""
    pool = clustered(6000, 4).astype(np.float16)
    for name, rows in zip("abcd", np.array_split(pool, 4), strict=True):
        np.save(files / "features" / f"{name}.npy", rows)
    want = farthest_first(pool, 4000).indices
    state = files / "state"
    command = torchrun(files, "-k", "4000", "--checkpoint", str(state), "--checkpoint-every", "0")
    pipe = subprocess.PIPE
    begun = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    while not (state / "picks.npz").exists() and begun.poll() is None:
        time.sleep(0.005)
    os.killpg(begun.pid, signal.SIGINT)
    _, told = begun.communicate(timeout=60)  # once no rank holds the pipes
    assert begun.returncode != 0
    assert told.count("dynal-fast: interrupted") == 1
    assert not (files / "r.npy").exists()
    assert 0 < len(np.load(state / "picks.npz")["indices"]) < 4000
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(files / "r.npy"), want)
    assert done.stdout.count("4000 picks of 6000 samples") == 1


def run_as_rank(rank, port, folder, more, killed):
    """What ``python -m dynal_fast select`` does as one of two ranks, up to the end of a process.

    A rank that is ``killed`` writes its part of one checkpoint.
    """
    write = Checkpoint.write

    def write_and_die(*state):
        write(*state)
        os.kill(os.getpid(), signal.SIGKILL)

    if killed:
        Checkpoint.write = write_and_die
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.dup2(os.open(f"{folder}/told-{rank}", os.O_CREAT | os.O_WRONLY), 2)
    code = main(["select", f"{folder}/features", "-o", f"{folder}/p.npy", "-q", *more])
    ctypes.pythonapi.Py_Exit(code)


def two_ranks(files, *more, killed=None):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        CONTEXT.Process(
            target=run_as_rank, args=(rank, port, str(files), more, rank == killed), daemon=True
        )
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def test_an_error_of_all_ranks_is_told_once(files):
    for rank in two_ranks(files, "-k", "901"):
        rank.join(60)
        assert rank.exitcode == 2
    assert "error: k must be between 0 and 900" in (files / "told-0").read_text()
    assert "error" not in (files / "told-1").read_text()


def test_a_rank_leaves_soon_when_another_is_killed(files):
    """It does not wait for calls that nobody answers, as torch would at its exit."""
    np.save(files / "features" / "a.npy", clustered(6000, 8).astype(np.float16))
    state = files / "state"
    more = ("-k", "5000", "--checkpoint", str(state), "--checkpoint-every", "0")
    stays, _ = two_ranks(files, *more, killed=1)
    stays.join(60)
    assert stays.exitcode == 1
    assert "rank 1 gave no sign of life" in (files / "told-0").read_text()
