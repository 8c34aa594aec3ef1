"""Labels as people and Label Studio write them down, and which sample each is of."""

import json
import unicodedata
from pathlib import Path

import pytest

from dynal_fast.data.catalogue import Catalogue, UnknownSampleError
from dynal_fast.data.source import DatasetCorruptError
from dynal_fast.data.table import read_table, table_bytes
from dynal_fast.experiment.asking.answers import read_answers

NAMES = (
    "unlabeled/a.png",
    "unlabeled/sub/a.png",
    'unlabeled/b, "c" d.png',
    "unlabeled/Zürich é.png",
    "unlabeled/50%25 (1).png",
    "unlabeled/new\nline.png",
    "unlabeled/sub/back\\slash.png",
    "unlabeled/#1=ok;?.png",
)
CLASSES = ("cat", "dog, wolf")


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "my photos"
    return Catalogue(root, NAMES, "file", tuple("1" * len(NAMES)))


@pytest.mark.parametrize("i", range(len(NAMES)))
def test_every_form_of_a_path_finds_its_sample(photos, i, monkeypatch):
    from urllib.parse import quote

    name = NAMES[i]
    last = name.rpartition("/")[2]
    forms = [
        name,
        f"  {name} ",
        f"./{name}",
        str(photos.root / name),
        f"/home/ann/my photos/{name}",
        f"/data/local-files/?d={quote(f'my photos/{name}')}",
        f"/data/local-files/?d={quote(f'my photos/{name}', safe='')}",
        f"http://localhost:8080/data/local-files/?d={quote(f'my photos/{name}')}",
        f"https://example.org/bucket/{quote(name)}",
        unicodedata.normalize("NFD", name),
    ]
    if "\\" not in name:
        forms += [name.replace("/", "\\"), "C:\\photos\\" + name.replace("/", "\\")]
    if last != "a.png":
        forms += [last]
    assert [photos.find(form) for form in forms] == [i] * len(forms)
    photos.root.mkdir()
    monkeypatch.chdir(photos.root.parent)
    assert photos.find(f"my photos/{name}") == i


@pytest.mark.parametrize(
    ("uploaded", "i"),
    [
        ("/data/upload/3/0a1b2c3d-b_c_d.png", 2),
        ("/data/upload/0a1b2c3d-Z%C3%BCrich_%C3%A9.png", 3),
        ("upload/12/ffffffff-5025_1.png", 4),
        ("http://localhost:8080/data/upload/3/0a1b2c3d-1ok.png", 7),
    ],
)
def test_an_upload_is_found_by_the_name_that_label_studio_gave_it(photos, uploaded, i):
    assert photos.find(uploaded) == i


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("a.png", "'a.png' may be 'unlabeled/a.png' and 'unlabeled/sub/a.png': name the folder"),
        ("/data/upload/1/0a1b2c3d-a.png", "may be 'unlabeled/a.png' and"),
        ("other/a.png", "holds no image 'other/a.png'"),
        ("/nowhere/other.png", "no sample is '/nowhere/other.png'"),
        ("../my photos", "holds no image"),
        ("unlabeled", "holds no image 'unlabeled'"),
        ("", "holds no image ''"),
    ],
)
def test_a_reference_to_nothing_or_to_two_is_refused(photos, reference, message):
    with pytest.raises(UnknownSampleError, match=message):
        photos.find(reference)


def test_an_absolute_path_below_the_root_is_that_file_or_none(photos):
    """Not another file whose name ends alike."""
    with pytest.raises(UnknownSampleError, match="holds no image"):
        photos.find(str(photos.root / "elsewhere" / "unlabeled" / "a.png"))


ROWS = [[name, CLASSES[i % 2]] for i, name in enumerate(NAMES)]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_every_program_are_read(photos, tmp_path, bom, ends, delimiter):
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends)
    writer.writerow(["File ", "rank", "LABEL"])
    writer.writerows([name, i, label] for i, (name, label) in enumerate(ROWS))
    path = tmp_path / "labels.csv"
    path.write_bytes(bom + text.getvalue().encode() + ends.encode() * 2)
    answers = read_answers(path, photos, CLASSES)
    assert [(answer.sample, answer.label) for answer in answers] == [
        (i, i % 2) for i in range(len(NAMES))
    ]


def test_what_is_written_is_read_again(photos, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(table_bytes(["file", "label"], ROWS))
    assert path.read_bytes().startswith(b"\xef\xbb\xbf"), "it is not ASCII"
    table = read_table(path)
    assert (table.names, table.rows) == (["file", "label"], ROWS)
    assert len(read_answers(path, photos, CLASSES)) == len(NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"file,label\nunlabeled/a.png,c\xe4t\n",
            r"not UTF-8 \(byte 28\): save it as CSV in UTF-8",
        ),
        ("file,label\n".encode("utf-16"), "is not UTF-8"),
        (b"file\0,label\n", "holds bytes that no text has"),
        (b"\n\n", "holds no table"),
        (b"file,label,file\n", "has two columns called 'file'"),
    ],
)
def test_a_damaged_table_is_named(photos, tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=f"{path}.*{message}"):
        read_answers(path, photos, CLASSES)


def task(name=NAMES[2], *choices, key="file", **more):
    result = {"type": "choices", "from_name": "label", "value": {"choices": list(choices)}}
    annotation = {"id": 1, "was_cancelled": False, "result": [result] if choices else []}
    return {"id": 7, "data": {key: name}, "annotations": [annotation]} | more


def read_json(tmp_path, photos, tasks):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    return [(answer.sample, answer.label) for answer in read_answers(path, photos, CLASSES)]


def test_an_export_with_its_own_interface_is_read(photos, tmp_path):
    """Images that were uploaded, another name for the choices, other tags beside them."""
    own = task(NAMES[3], "cat", key="photo_id") | {
        "data": {"image": "/data/upload/1/0a1b2c3d-1ok.png"}
    }
    own["annotations"][0]["result"] = [
        {"type": "rectanglelabels", "from_name": "box", "value": {"rectanglelabels": ["x"]}},
        {"type": "choices", "from_name": "animal", "value": {"choices": ["dog, wolf"]}},
    ]
    assert read_json(tmp_path, photos, [own]) == [(7, 1)]


def test_skipped_and_unfinished_tasks_have_no_label(photos, tmp_path):
    skipped = task(NAMES[1], "cat")
    skipped["annotations"][0]["was_cancelled"] = True
    predicted = {"id": 1, "data": {"file": NAMES[0]}, "predictions": skipped["annotations"]}
    tasks = [task(), skipped, task(annotations=[]), predicted, task(NAMES[4], "cat")]
    assert read_json(tmp_path, photos, tasks) == [(4, 0)]
    least = [{"file": NAMES[0], "id": 3}, {"file": NAMES[1], "label": ""}]
    assert read_json(tmp_path, photos, least) == []


def test_two_annotators_may_agree(photos, tmp_path):
    twice = task(NAMES[0], "cat")
    twice["annotations"] *= 2
    assert read_json(tmp_path, photos, [twice]) == [(0, 0)]
    least = [{"file": NAMES[0], "label": "cat", "annotator": i} for i in (1, 2)]
    assert read_json(tmp_path, photos, least) == [(0, 0)]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({}, "is no export of Label Studio: it should be a list"),
        ([1], "is no export of Label Studio"),
        ([task(NAMES[0], "cat", "dog, wolf")], "task 7 is labeled twice, 'cat' and 'dog, wolf'"),
        ([task("x.png", "cat")], "task 7: .* holds no image 'x.png'"),
        ([task(NAMES[0], "Dog, Wolf")], "no class is called 'Dog, Wolf'; did you mean 'dog, wolf'"),
        ([task(3.5, "cat")], "task 7 does not say of which sample it is"),
        ([task(NAMES[0], "cat", annotations=[4])], "task 7: its annotations have no result"),
        ([task(NAMES[0], "cat", annotations=4)], "task 7: its annotations should be a list"),
        ([{"file": NAMES[0], "label": {"choices": ["cat", "dog, wolf"]}}], "is labeled twice"),
        ([{"file": NAMES[0], "label": [None]}], "a label should be text, got None"),
        (
            [task(NAMES[0], "cat"), task(NAMES[0], "dog, wolf") | {"id": 8}],
            "labeled twice: 'cat' in .* task 7, and 'dog, wolf' in .* task 8",
        ),
    ],
)
def test_exports_that_make_no_sense_are_refused(photos, tmp_path, tasks, message):
    with pytest.raises(DatasetCorruptError, match=message):
        read_json(tmp_path, photos, tasks)


@pytest.mark.parametrize("content", ["[", "[" * 100_000, "\ufeff[{]"])
def test_text_that_is_no_json_is_refused(photos, tmp_path, content):
    path = tmp_path / "export.json"
    path.write_text(content)
    with pytest.raises(DatasetCorruptError, match="is no JSON"):
        read_answers(path, photos, CLASSES)


def test_texts_are_found_by_their_names_or_by_what_they_say(tmp_path):
    texts = Catalogue(
        Path("/t"), ("t1", "t2", "t3"), "text_id", ("", "", ""), ("one", "two", "two")
    )
    path = tmp_path / "labels.csv"
    path.write_text("text,sentiment\none,cat\n")
    assert [answer.sample for answer in read_answers(path, texts, CLASSES)] == [0]
    assert read_json(tmp_path, texts, [task("one", "cat", key="text")]) == [(0, 0)]
    path.write_text("text,label\ntwo,cat\n")
    with pytest.raises(DatasetCorruptError, match="'two' may be 't2' and 't3'"):
        read_answers(path, texts, CLASSES)
