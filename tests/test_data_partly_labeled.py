"""Folders of images of which most have no label, and texts with their embeddings."""

import os

import numpy as np
import pytest

from dynal_fast.data.partly_labeled import read_partly_labeled
from dynal_fast.data.source import DatasetCorruptError, DatasetNotFoundError
from dynal_fast.data.texts import read_texts
from dynal_fast.experiment.texts import read_embedded_texts

Image = pytest.importorskip("PIL.Image")


def images(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not decoded before it is used")
    return root


def labels_of(data):
    given = zip(data.catalogue.names, data.labels.tolist(), strict=True)
    return {name: data.class_names[label] if label >= 0 else None for name, label in given}


@pytest.mark.parametrize("train", ["", "train/"])
def test_labeled_folders_beside_unlabeled_images_at_any_depth(tmp_path, train):
    root = images(
        tmp_path / "photos",
        f"{train}cat/1.png", f"{train}dog/1.JPG", "unlabeled/x y.png", "unlabeled/a/b/ü.jpeg",
        "unlabeled/.hidden.png", "unlabeled/.cache/1.png", "unlabeled/notes.txt",
        "val/cat/1.png", "val/bird/2.png",
    )  # fmt: skip
    data = read_partly_labeled(root, (4, 6))
    assert data.class_names == ("bird", "cat", "dog")
    assert labels_of(data) == {
        f"{train}cat/1.png": "cat",
        f"{train}dog/1.JPG": "dog",
        "unlabeled/a/b/ü.jpeg": None,
        "unlabeled/x y.png": None,
    }
    assert data.test_labels.tolist() == [0, 1]
    assert data.name == "photos"
    assert data.inputs.shape == (4, 3, 4, 6)
    assert [path.relative_to(root).as_posix() for path in data.inputs.paths] == list(
        data.catalogue.names
    )


def test_without_a_folder_unlabeled_nothing_has_a_label(tmp_path):
    root = images(tmp_path, "2021/1.png", "2022/may/1.png", "3.png", "test/cat/1.png")
    data = read_partly_labeled(root, classes=["dog", "cat"])
    assert labels_of(data) == {"2021/1.png": None, "2022/may/1.png": None, "3.png": None}
    assert data.test_labels.tolist() == [1]


def test_a_hold_out_elsewhere(tmp_path):
    root = images(tmp_path / "in", "1.png", "held/cat/1.png", "held/dog/1.png")
    data = read_partly_labeled(root, holdout=root / "held")
    assert labels_of(data) == {"1.png": None}
    assert data.test_labels.tolist() == [0, 1]
    assert read_partly_labeled(root, classes=["a", "b"]).test_inputs.shape == (0, 3, 224, 224)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["1.png"],
            {},
            "classes must name at least two classes: .* has no label for its 1 samples",
        ),
        (["unlabeled/1.png", "cat/1.png"], {}, "has only the class 'cat'"),
        (
            ["unlabeled/1.png", "cat/1.png"],
            {"classes": ["a", "b"]},
            "class folder, and 'cat' is one",
        ),
        (["unlabeled/1.txt", "cat/1.png"], {}, "unlabeled holds no images"),
        (["1.txt"], {"classes": ["a", "b"]}, "holds no images"),
        (["unlabeled/1.png", "train/x.png"], {}, "holds no class folders"),
        (["1.png"], {"holdout": "/nowhere"}, "holdout must be a folder of class folders, /nowhere"),
        (["1.png"], {"image_size": (0, 1)}, "image_size must be"),
    ],
)
def test_folders_that_cannot_be_asked_about(tmp_path, names, options, message):
    from pathlib import Path

    if "holdout" in options:
        options = options | {"holdout": Path(options["holdout"])}
    with pytest.raises((ValueError, DatasetNotFoundError), match=message):
        read_partly_labeled(images(tmp_path, *names), **options)


def test_a_name_that_no_table_could_hold_is_refused(tmp_path):
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff.png", os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(DatasetCorruptError, match="a file whose name is not UTF-8"):
        read_partly_labeled(tmp_path, classes=["a", "b"])


def test_texts_of_a_table_a_file_of_lines_and_a_folder(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(
        b'\xef\xbb\xbfid;text;label;split\r\nx;"one; ""1""\r\nmore";b;\r\ny;two;a;test\r\n'
    )
    texts = read_texts(table)
    assert texts.catalogue.names == ("x", "y")
    assert texts.catalogue.texts == ('one; "1"\r\nmore', "two")
    assert texts.class_names == ("a", "b")
    assert texts.labels.tolist() == [1, 0]
    assert texts.held_out.tolist() == [False, True]

    (tmp_path / "lines.txt").write_text("one\ntwo, three\n")
    texts = read_texts(tmp_path / "lines.txt", ["a", "b"])
    assert texts.catalogue.names == ("0", "1")
    assert texts.catalogue.texts == ("one", "two, three")
    assert texts.labels.tolist() == [-1, -1]

    for name in ("b.txt", "a/c d.txt"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(name)
    texts = read_texts(tmp_path / "folder", ["a", "b"])
    assert texts.catalogue.names == texts.catalogue.texts == ("a/c d.txt", "b.txt")
    assert texts.catalogue.find(str(tmp_path / "folder" / "b.txt")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("words\none\n", "has no column 'text'; it has words"),
        ("text,label\n", "holds no texts"),
        ("text,label\none,a\n ,b\n", "text 1 is empty"),
        ("id,text\n1,one\n1,two\n", "text 1: text_id must be distinct, got '1'"),
        ("text,label\none,c\n", "classes must name every label, and text 0 of .* is c"),
        ("text,split\none,dev\n", "split must be train or test, text 0: dev"),
        ("text,split\none,test\n", "text 0 is to test on and has no label"),
    ],
)
def test_a_table_of_texts_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(
        DatasetCorruptError if "classes" not in message else ValueError, match=message
    ):
        read_texts(path, ["a", "b"])
    with pytest.raises(DatasetNotFoundError, match="texts need a file or a folder"):
        read_texts(tmp_path / "nowhere.csv", ["a", "b"])
    path = tmp_path / "t.parquet"
    path.write_text("")
    with pytest.raises(DatasetCorruptError, match=r"texts must be \.csv, \.tsv, \.txt or a folder"):
        read_texts(path, ["a", "b"])


def test_embeddings_are_checked_against_the_texts(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\none,a\ntwo,b\n")
    features = tmp_path / "e.npy"
    np.save(features, np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"a row for each of the 2 texts of .*, got 3"):
        read_embedded_texts(path, str(features))
    np.save(features, np.array([[1, 2], [3, np.nan]]))
    with pytest.raises(ValueError, match="embeddings must be finite, row 1 of"):
        read_embedded_texts(path, str(features))
    np.save(features, np.float16([[1, 2], [3, 4]]))
    data = read_embedded_texts(path, str(features))
    assert data.inputs.dtype == np.float32
    assert data.inputs.tolist() == [[1, 2], [3, 4]]
    path.write_text("text,label\none,a\ntwo,\n")
    with pytest.raises(ValueError, match="a label for every text, and 1 have none, such as 1; --o"):
        read_embedded_texts(path, str(features), ["a", "b"], split=True)
