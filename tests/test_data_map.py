"""Data maps: regions, the picture, the page, and files that hold something else."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from dynal_fast import PoolStats
from dynal_fast.cli import main
from dynal_fast.report import data_map
from dynal_fast.report.data_map import read_dynamics, regions, write_data_map, write_data_maps


def dynamics(n=60, classes=3, epochs=6, labeled=None):
    """The first third is learned, the second is not, the third goes to and fro."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(classes, (n,), generator=generator)
    kind = torch.arange(n) * 3 // max(1, n)
    stats = PoolStats(n, classes, training_dynamics=True)
    for epoch in range(1, epochs + 1):
        pull = torch.tensor([4.0, -4.0, 4.0 * (-1) ** epoch])[kind]
        logits = pull[:, None] * torch.eye(classes)[targets]
        logits += 0.1 * torch.randn(n, classes, generator=generator)
        with stats.observe(epoch, epochs):
            given = targets if labeled is None else targets.where(labeled, -1)
            stats.update(torch.arange(n), logits, targets=given)
    return stats.training_dynamics()


def test_regions_are_where_the_samples_were_made():
    known = dynamics()
    region, bound = regions(known.confidence, known.variability)
    assert region.tolist() == [0] * 20 + [2] * 20 + [1] * 20
    assert 0.1 < bound < 0.5
    rows = data_map.data_map_table(known).rows
    assert [row[1] for row in rows] == ["20", "20", "20"]
    assert float(rows[0][2]) > 0.9 > 0.1 > float(rows[2][2])
    assert [row[4] for row in rows] == ["1.000", "0.500", "0.000"]


def test_the_picture_is_whole_and_named(tmp_path):
    path = write_data_map(dynamics(), tmp_path / "map.svg")
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert "20 easy to learn, 20 ambiguous, 20 hard to learn" in root.attrib["aria-label"]
    for word in ("variability", "confidence", ">ambiguous<", "Swayamdipta"):
        assert word in text
    drawn = re.findall(r'class="dots (\w+)" d="([^"]*)"', text)
    assert [colour for colour, _ in drawn] == ["c2", "c0", "c1"]
    assert [d.count("M") for _, d in drawn] == [20, 20, 20]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_samples_and_none(tmp_path, n):
    text = write_data_map(dynamics(max(n, 1), labeled=torch.arange(max(n, 1)) < n),
                          tmp_path / "map.svg").read_text()  # fmt: skip
    ElementTree.fromstring(text)
    assert "nan" not in text


def test_of_many_samples_some_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(data_map, "MOST_DRAWN", 30)
    known = dynamics()
    text = write_data_map(known, tmp_path / "map.svg").read_text()
    assert sum(d.count("M") for d in re.findall(r'class="dots \w+" d="([^"]*)"', text)) == 30
    saved = tmp_path / "run.npz"
    np.savez(saved, **known._asdict())
    assert (
        "60 labeled samples, of which 30 are drawn"
        in write_data_maps([saved], tmp_path).read_text()
    )


def test_the_command_writes_a_page(tmp_path, capsys):
    known = dynamics()
    for name in ("first", "second"):
        np.savez(tmp_path / f"{name}.npz", **known._asdict())
    read = read_dynamics(tmp_path / "first.npz")
    assert all(torch.equal(a, b) for a, b in zip(read, known, strict=True))
    files = [str(tmp_path / f"{name}.npz") for name in ("first", "second")]
    main(["report", *files, "-o", str(tmp_path / "page")])
    assert str(tmp_path / "page" / "index.html") in capsys.readouterr().out
    text = (tmp_path / "page" / "index.html").read_text()
    assert text.count("<section") == 2
    lowest = int(known.aum.argmin())
    assert re.search(rf"Labels to look at first.*?>{lowest}<", text, re.S)


def test_files_that_hold_something_else_are_named(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    parts = dynamics()._asdict()
    np.savez(tmp_path / "ragged.npz", **{**parts, "aum": np.zeros(3)})
    for name in ("other", "broken", "ragged", "missing"):
        with pytest.raises(ValueError, match=rf"{name}\.npz must hold"):
            read_dynamics(tmp_path / f"{name}.npz")
    np.savez(tmp_path / "good.npz", **parts)
    mixed = ["report", str(tmp_path / "good.npz"), str(tmp_path), "-o", str(tmp_path / "page")]
    assert main(mixed) != 0
    assert "of one kind" in capsys.readouterr().err
