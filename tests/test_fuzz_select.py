"""Damaged and made-up files of embeddings: read, or refused in one line, and never a traceback.

The mutations are drawn from a seed. ``DYNAL_FAST_FUZZ=N`` draws N of each file instead of a few.
"""

import functools
import os
import random
import shutil

import numpy as np
import pytest

from dynal_fast import cli
from tests.cases.embedding_files import write_all

pytest.importorskip("pyarrow")

CASES = int(os.environ.get("DYNAL_FAST_FUZZ", "25"))
TOKENS = [
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"18446744073709551617",
]
TOKENS += [b"'|O'", b"(", b"]", b'"', b"\n", b",", b"\0" * 8, b"PK\x03\x04", b"{}", b"[1, 2]"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Build the parser once and wait for no disk: both take longer than a case."""
    monkeypatch.setattr(cli, "build_parser", functools.cache(cli.build_parser))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("files"))


def mutated(content, draw):
    """Return ``content`` with one to four damages: bits, bytes, pieces, numbers, an early end."""
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(damaged)) if damaged else 0
        if draw.random() < 0.5:
            at = min(at, draw.randrange(1, 300))  # headers are where the decisions are
        kind = draw.randrange(7)
        if kind == 0 and damaged:
            damaged[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and damaged:
            damaged[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            del damaged[at : at + draw.choice((1, 4, 50))]
        elif kind == 3:
            damaged[at:at] = draw.choice(TOKENS)
        elif kind == 4:
            token = draw.choice(TOKENS)
            damaged[at : at + len(token)] = token
        elif kind == 5:
            piece = damaged[at : at + draw.choice((1, 8, 64))]
            other = draw.randrange(len(damaged) + 1)
            damaged[other:other] = piece
        else:
            del damaged[at:]
    return bytes(damaged)


def select(path, capsys, *options):
    """Select from ``path``; the code and what was said, which is one line of a refusal."""
    picks = path.parent / "picks.npy"
    picks.unlink(missing_ok=True)
    code = cli.main(["select", "-q", str(path), "-k", "2", "-o", str(picks), *options])
    out, err = capsys.readouterr()
    if code == 0:
        assert np.load(picks).shape == (2,)
        assert err == ""
    else:
        assert code == 2, err
        assert not picks.exists()
        assert out == ""
        assert err.startswith("dynal-fast: error: ")
        assert err.count("\n") == 1
        assert len(err) < 2000
    return code, err


NAMES = [
    "a.npy",
    "big-endian.npy",
    "a.npz",
    "compressed.npz",
    "a.pt",
    "dictionary.pth",
    "before-1.6.pt",
    "a.safetensors",
    "a.csv",
    "indexed.csv",
    "quoted.csv",
    "lists.csv",
    "savetxt.txt",
    "a.csv.gz",
    "columns.parquet",
    "list.parquet",
    "fixed.parquet",
    "a.feather",
    "plain.arrow",
    "stream.arrow",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_refused_in_one_line(files, tmp_path, capsys, name):
    content = files[name].read_bytes()
    codes = set()
    for case in range(CASES):
        draw = random.Random(f"{name} {case}")
        path = tmp_path / "file"
        path.write_bytes(mutated(content, draw))
        codes.add(select(path, capsys)[0])
    assert 2 in codes  # the damages are not all too small to matter


def test_a_damaged_dataset_folder(files, tmp_path, capsys):
    folder, codes = tmp_path / "dataset", set()
    for case in range(CASES):
        draw = random.Random(f"dataset {case}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files["dataset"], folder)
        victim = draw.choice(sorted(folder.iterdir()))
        victim.write_bytes(mutated(victim.read_bytes(), draw))
        codes.add(select(folder, capsys)[0])
    assert 2 in codes


@pytest.mark.parametrize("text", ["3\n8\n", "row,distance\n3,inf\n8,1.5\n", "true\nfalse\n" * 25])
def test_damaged_labeled_rows(files, tmp_path, capsys, text):
    for case in range(CASES):
        path = tmp_path / "labeled"
        path.write_bytes(mutated(text.encode(), random.Random(f"{text} {case}")))
        shutil.copy(files["a.npy"], tmp_path / "pool")
        select(tmp_path / "pool", capsys, "--labeled", str(path))


def test_any_bytes_are_refused_in_one_line(tmp_path, capsys):
    magics = [b"\x93NUMPY\1\0", b"PK\3\4", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff", b"\x1f\x8b"]
    magics += [b"\x80\2", b"\x10\0\0\0\0\0\0\0{", b"", b"a,b\n"]
    for case in range(4 * CASES):
        draw = random.Random(f"bytes {case}")
        path = tmp_path / "file"
        path.write_bytes(draw.choice(magics) + draw.randbytes(draw.randrange(300)))
        select(path, capsys)
