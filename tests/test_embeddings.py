"""Embeddings from files: every format gives the same numbers, and what is no embedding is named."""

import json
import pickle
import re
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dynal_fast import farthest_first, load_embeddings
from dynal_fast.embeddings import source
from dynal_fast.embeddings.columns import choose_columns
from tests.cases.embedding_files import (
    MATRIX,
    NAMES,
    arrow_table,
    csv_text,
    safetensors_bytes,
    write_all,
    write_dataset,
    write_stream,
)

pytest.importorskip("pyarrow")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("files"))


def refused(path, **options):
    with pytest.raises(ValueError) as error:
        load_embeddings(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_format_gives_the_same_numbers(files):
    expected = farthest_first(MATRIX, 5).indices.tolist()
    for name, path in files.items():
        loaded = load_embeddings(path)
        array = loaded.array
        text = name.endswith((".csv", ".tsv", ".txt", ".gz"))
        assert array.dtype == (np.float64 if text else np.float32), name
        assert np.array_equal(np.asarray(array, np.float32), MATRIX), name
        assert sum(loaded.sizes) == 50, name
        assert farthest_first(array, 5).indices.tolist() == expected, name


def test_the_content_decides_and_not_the_name(files, tmp_path):
    for name, path in files.items():
        if path.is_file():
            copy = tmp_path / "x.bin"
            copy.write_bytes(path.read_bytes())
            assert np.array_equal(np.float32(load_embeddings(copy).array), MATRIX), name


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what is mapped")
@pytest.mark.parametrize("name", ["a.npy", "a.pt", "a.safetensors"])
def test_what_can_be_mapped_is_not_read(files, name):
    array = load_embeddings(files[name]).array
    mapped = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in mapped if line.endswith(str(files[name]))]
    at = array.ctypes.data
    assert any(int(begin, 16) <= at < int(end, 16) for begin, end in ranges)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i1", "i2", "u2", "i4", "i8", "?"])
def test_the_dtype_is_kept_as_it_is_stored(tmp_path, dtype):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    array = np.arange(12).reshape(4, 3).astype(dtype)
    names = {"f2": "F16", "f4": "F32", "f8": "F64", "u1": "U8", "i1": "I8", "i2": "I16"}
    names |= {"u2": "U16", "i4": "I32", "i8": "I64", "?": "BOOL"}
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)
    torch.save(torch.from_numpy(array), tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"x": array}, {"x": names[dtype]}))
    if dtype not in ("?", "f2"):
        table = arrow.table({f"e{i}": array[:, i] for i in range(3)})
        parquet.write_table(table, tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        loaded = load_embeddings(path).array
        assert loaded.dtype == array.dtype, path
        assert np.array_equal(loaded, array), path


def test_bfloat16_stays_what_it_is(tmp_path):
    brain = torch.from_numpy(MATRIX).bfloat16()
    torch.save(brain, tmp_path / "a.pt")
    stored = brain.view(torch.int16).numpy()
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"x": stored}, {"x": "BF16"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.pt", "a.safetensors"):
            loaded = load_embeddings(tmp_path / name).array
            assert loaded.dtype == torch.bfloat16
            assert torch.equal(loaded, brain)
        both = load_embeddings([tmp_path / "a.pt", tmp_path / "a.safetensors"]).array
    assert torch.equal(both, torch.cat([brain, brain]))


def test_an_unaligned_tensor_is_copied(tmp_path):
    content = safetensors_bytes({"one": np.uint8([7]), "x": MATRIX}, {"one": "U8", "x": "F32"})
    (tmp_path / "a").write_bytes(content)
    array = load_embeddings(tmp_path / "a", key="x").array
    assert array.flags.aligned
    assert np.array_equal(array, MATRIX)


def test_fortran_order_is_kept(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(MATRIX))
    np.savez(tmp_path / "a.npz", np.asfortranarray(MATRIX))
    for name in ("a.npy", "a.npz"):
        array = load_embeddings(tmp_path / name).array
        assert array.flags.f_contiguous
        assert np.array_equal(array, MATRIX)


@pytest.mark.parametrize("ending", ["npz", "pt", "safetensors"])
def test_several_arrays_need_a_key(tmp_path, ending):
    path, labels = tmp_path / f"a.{ending}", np.arange(50)
    if ending == "npz":
        np.savez(path, x=MATRIX, labels=labels)
    elif ending == "pt":
        torch.save({"x": torch.from_numpy(MATRIX), "labels": torch.from_numpy(labels)}, path)
    else:
        arrays = {"x": MATRIX, "labels": labels}
        path.write_bytes(safetensors_bytes(arrays, {"x": "F32", "labels": "I64"}))
    message = refused(path)
    assert re.search(r"several arrays: 'x' \(50, 6\) \S+, 'labels' \(50,\)", message)
    assert "--key" in message
    assert np.array_equal(load_embeddings(path, key="x").array, MATRIX)
    assert "has no array 'y'; it holds 'x'" in refused(path, key="y")
    assert "must have shape (samples, features), got (50,)" in refused(path, key="labels")


def _numpy_header(shape, descr="'<f4'", order="False", version=b"\1\0", data=bytes(48)):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_numpy_header("(18446744073709551617, 1)"), "cut short: 48 of the 73786976294838206468"),
        (_numpy_header("(1099511627776, 4)"), "is cut short"),
        (_numpy_header("(3, 5)"), "is cut short: 48 of the 60 bytes"),
        (_numpy_header("(-1, 3)"), "its shape is (-1, 3)"),
        (_numpy_header("(-4, -3)"), "its shape is (-4, -3)"),
        (_numpy_header("(3.0, 4)"), "cannot be read as a .npy array"),
        (_numpy_header("3"), "cannot be read as a .npy array"),
        (_numpy_header("((3,), 4)"), "cannot be read as a .npy array"),
        (_numpy_header("(3, 4)", order="7"), "cannot be read as a .npy array"),
        (_numpy_header("(3, 4)", descr="'zz'"), "cannot be read as a .npy array"),
        (_numpy_header("(3, 4)", version=b"\x09\0"), "version 9.0 of the format"),
        (_numpy_header("(3, 3)"), "has 12 bytes after its array"),
        (b"\x93NUMPY", "cannot be read as a .npy array"),
        (b"\x93NUMPY\1\0\x28\x23" + b"(" * 9000, "cannot be read as a .npy array"),
        (_numpy_header("(3, 4)", descr="'|O'"), "holds Python objects"),
        (_numpy_header("(6,)", descr="[('a', '<f4'), ('b', '<f4')]"), "holds a structured array"),
        (_numpy_header("(3, 2)", descr="'<c8'"), "holds complex numbers"),
        (_numpy_header("(3, 4)", descr="'|S4'"), "holds texts"),
        (_numpy_header("(3, 2)", descr="'<M8[s]'"), "holds dates"),
        (_numpy_header("(3, 1)", descr="'<f16'"), "holds float128; save them with .astype"),
        (_numpy_header("(12,)"), "must have shape (samples, features), got (12,)"),
        (_numpy_header("()", data=bytes(4)), "must have shape (samples, features), got ()"),
        (_numpy_header("(3, 2, 2)"), "must have shape (samples, features), got (3, 2, 2)"),
        (_numpy_header("(3, 0)", data=b""), "must have shape (samples, features), got (3, 0)"),
    ],
)
def test_impossible_npy_headers_are_one_line(tmp_path, content, message):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    error = refused(path)
    assert message in error
    assert str(path) in error


class Payload:
    def __reduce__(self):
        return (open, ("/tmp/dynal-fast-was-run", "w"))


def _zip(*names):
    import io

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"", "is empty"),
        ("a.npy", pickle.dumps(MATRIX, 4), "is a pickle, which is not run; load it where you"),
        ("a.pkl", pickle.dumps(Payload(), 2), "is a pickle"),
        ("a.pkl", pickle.dumps([1], 0), "is a pickle"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file; convert"),
        ("a.mat", b"MATLAB 5.0 MAT-file" + bytes(99), "is a MATLAB file; convert"),
        ("a.json", json.dumps(MATRIX.tolist()).encode(), "is JSON; convert"),
        ("a.jsonl", b'{"x": [1, 2]}\n', "is JSON; convert"),
        ("a.txt", b"Some words, and\nsome more.\n", "is text, and no column of it holds numbers"),
        ("a.html", b"<html></html>", "is HTML or XML"),
        ("a.tfrecord", bytes(range(100, 240)), "is TFRecords; convert"),
        ("a.mdb", bytes(range(100, 240)), "is an LMDB database; convert"),
        ("a.zip", _zip("a.txt"), "is a zip archive of a.txt; unpack it"),
        ("a.zip", _zip(), "is a zip archive; unpack it"),
        ("a.xlsx", _zip("[Content_Types].xml", "xl/x"), "is an Office document; save the sheet"),
        ("a.pt", _zip("a/data.pkl", "a/code/x.py"), "is a TorchScript program"),
        ("a.pt", _zip("a/data.pkl"), "cannot be read as a tensor that torch.save wrote"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(99), "is an image; embed"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(99), "is an image; embed"),
        ("a.npy.xz", b"\xfd7zXZ\0" + bytes(99), "is compressed with xz; unpack it"),
        ("a.tar", bytes(257) + b"ustar" + bytes(300), "is a tar archive; unpack it"),
        ("a.bin", MATRIX.tobytes(), "is bare numbers; read them with np.fromfile"),
        ("a", bytes(range(256)), "is in a format that is not known; save it as .npy"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "is text in UTF-16"),
        ("a.npy", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("a.feather", b"FEA1" + bytes(99), "is a Feather file of version 1"),
        ("a.parquet", b"PAR1" + bytes(99), "cannot be read as Parquet"),
        ("a.arrow", b"ARROW1\0\0" + bytes(99), "cannot be read as an Arrow file"),
        ("a.arrow", b"\xff\xff\xff\xff" + bytes(99), "cannot be read as an Arrow stream"),
        ("a.safetensors", (10**6).to_bytes(8, "little") + b"{", "it is cut short"),
        ("a.csv.gz", b"\x1f\x8b" + bytes(99), "cannot be read as gzip"),
    ],
)
def test_other_files_are_named_with_their_cure(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    error = refused(path)
    assert message in error
    assert error.startswith(str(path))


def test_objects_in_a_torch_file_are_not_run(tmp_path):
    torch.save({"x": Payload()}, tmp_path / "a.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    assert "holds Python objects, which are not run" in refused(tmp_path / "a.pt")
    assert "holds Python objects, which are not run" in refused(tmp_path / "model.pt")
    assert "holds a list, not a tensor; save one tensor" in refused(tmp_path / "list.pt")
    torch.save(torch.ones(2, 2).to_sparse(), tmp_path / "sparse.pt")
    torch.save(torch.ones(2, 2, dtype=torch.complex64), tmp_path / "complex.pt")
    torch.save(torch.empty(2, 2, device="meta"), tmp_path / "meta.pt")
    torch.save(torch.ones(2, 2).to(torch.float8_e4m3fn), tmp_path / "eight.pt")
    for name in ("sparse", "complex", "meta", "eight"):
        assert refused(tmp_path / f"{name}.pt").startswith(f"{tmp_path / name}.pt ")


def test_what_is_cut_short_is_refused(files, tmp_path):
    for name, path in files.items():
        if path.is_dir() or name.endswith((".csv", ".tsv", ".txt")):
            continue  # of a text the rest may be whole
        content = path.read_bytes()
        for keep in (len(content) // 2, len(content) - 1):
            (tmp_path / "cut").write_bytes(content[:keep])
            assert refused(tmp_path / "cut").startswith(str(tmp_path / "cut")), (name, keep)


def test_what_is_no_file_is_refused(tmp_path):
    assert "cannot be read: No such file" in refused(tmp_path / "missing.npy")
    assert "not a file" in refused("/dev/zero")
    assert "must not be empty" in refused("")
    assert "no file is given" in refused([])
    assert "is an address; download" in refused("https://example.org/a.npy")
    assert "no file matches" in refused(f"{tmp_path}/*.npy")


def test_more_than_the_memory_is_refused_before_it_is_taken(files, monkeypatch):
    monkeypatch.setattr(source, "physical_memory", lambda: 1000)
    for name in ("a.npz", "a.csv", "list.parquet", "parts", "dataset"):
        assert "more than the memory; one .npy file" in refused(files[name])
    for name in ("a.npy", "a.pt", "a.safetensors"):
        assert load_embeddings(files[name]).array.shape == (50, 6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.npy", {"key": "x"}, "has no keys"),
        ("a.csv", {"key": "x"}, "has no keys"),
        ("list.parquet", {"key": "x"}, "has no keys"),
        ("a.pt", {"key": "x"}, "has no keys"),
        ("a.npy", {"columns": ["e*"]}, "is no table"),
        ("a.npz", {"columns": ["e*"]}, "is no table"),
        ("a.pt", {"columns": ["e*"]}, "is no table"),
        ("a.safetensors", {"columns": ["e*"]}, "is no table"),
        ("a.npy", {"header": True}, "is no text"),
        ("a.npz", {"header": False}, "is no text"),
        ("list.parquet", {"header": True}, "is no text"),
        ("dataset", {"header": True}, "is no text"),
    ],
)
def test_an_option_that_says_nothing_about_a_file_is_refused(files, name, options, message):
    assert message in refused(files[name], **options)


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    for name, begin in (("b.npy", 20), ("a.npy", 0), ("c.npy", 49)):
        np.save(tmp_path / name, MATRIX[begin : {20: 49, 0: 20, 49: 50}[begin]])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.npy").write_text("no")
    for paths in (tmp_path, f"{tmp_path}/*.npy", sorted(tmp_path.glob("[a-c].npy"))):
        loaded = load_embeddings(paths)
        assert np.array_equal(loaded.array, MATRIX)
        assert [file.name for file in loaded.files] == ["a.npy", "b.npy", "c.npy"]
        assert loaded.sizes == (20, 29, 1)
    assert load_embeddings(tmp_path).left_out == ("README.md",)
    where = [loaded.locate(i) for i in (0, 19, 20, 48, 49)]
    rows = [(file.name, row) for file, row in where]
    assert rows == [("a.npy", 0), ("a.npy", 19), ("b.npy", 0), ("b.npy", 28), ("c.npy", 0)]
    for index in (-1, 50):
        with pytest.raises(IndexError, match="from 0 to 49"):
            loaded.locate(index)


def test_an_empty_part_has_no_rows(tmp_path):
    np.save(tmp_path / "a.npy", MATRIX[:0])
    np.save(tmp_path / "b.npy", MATRIX)
    loaded = load_embeddings(tmp_path)
    assert loaded.sizes == (0, 50)
    assert loaded.locate(0) == (tmp_path / "b.npy", 0)


def test_folders_that_hold_no_embeddings_are_refused(tmp_path):
    assert "holds no .npy, .npz" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert "it holds notes.txt" in refused(tmp_path)
    np.save(tmp_path / "a.npy", MATRIX)
    (tmp_path / "b.csv").write_text(csv_text())
    assert "several formats (.csv, .npy); choose with a pattern such as" in refused(tmp_path)
    np.save(tmp_path / "b.npy", MATRIX[:, :5])
    assert "files must be alike" in refused(f"{tmp_path}/*.npy")
    np.save(tmp_path / "b.npy", MATRIX.astype(np.float64))
    assert "(n, 6) float32, " in refused(f"{tmp_path}/*.npy")
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(b"x")
    assert "is an LMDB database" in refused(tmp_path / "db")


def test_a_dataset_of_hugging_face(tmp_path):
    folder = write_dataset(tmp_path / "all" / "train", arrow_table("list"), parts=3)
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    loaded = load_embeddings(folder)
    assert np.array_equal(loaded.array, MATRIX)
    assert loaded.left_out == ("id", "text")
    assert loaded.locate(49)[0].name == "data-00002-of-00003.arrow"
    assert f"give one of them: {folder}" in refused(tmp_path / "all")
    (folder / "data-00001-of-00003.arrow").unlink()
    assert "lacks its data file data-00001-of-00003.arrow" in refused(folder)
    for state, message in (
        ("{", "cannot be read as the state of a dataset"),
        ('{"_data_files": [{"filename": "../x"}]}', "must lie beside it"),
        ('{"_data_files": []}', "without rows"),
        ('{"_data_files": [], "_indices_files": [1]}', "flatten_indices"),
        ("[]", "cannot be read as the state of a dataset"),
    ):
        (folder / "state.json").write_text(state)
        assert message in refused(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,\n", "row 1, column 'b': no value"),
        ("a,b\n1,2\n3\n", "row 1: 1 fields instead of 2"),
        ("a,b\n" + "1,2\n" * 200 + "3,x\n", "row 200, column 'b': 'x'"),
        ("a,b\n", "a line of names and no rows"),
        ("\n\n", "holds no rows"),
        ("0,1,2\n3,4,5\n", "whether that is a row or names of columns, with --no-header"),
        ("id,e0\n1,2\n", "column 'id' may be no feature: name the features with --columns"),
        ("e0,e1,Label\n1,2,3\n", "column 'Label' may be no feature"),
        ("image_id,e0\n1,2\n", "column 'image_id' may be no feature"),
        ('a,b\n"1,2\n', "whose quotes do not close|holds"),
        ("a,b\n1,2\n" + 'x"y,3\n', "row 1, column 'a': 'x"),
        ("a,b\n1,2\nN/A,3\n4,5\n", "row 1, column 'a': 'N/A'"),
        ('v\n"[1, 2]"\n"[1, 2, 3]"\n', "row 1: a list of 3 numbers, not 2"),
        ('v\n"[1, 2 ... 3]"\n', "'...'"),
        ("a;b\n1,5;2,5\n", "no column of it holds numbers"),
    ],
)
def test_tables_that_are_wrong_are_one_line(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert re.search(message.replace("...", r"\.\.\."), refused(path))


def test_a_header_can_be_said(tmp_path):
    (tmp_path / "a.csv").write_text("0,1,2\n3,4,5\n")
    assert load_embeddings(tmp_path / "a.csv", header=True).array.tolist() == [[3, 4, 5]]
    assert load_embeddings(tmp_path / "a.csv", header=False).array.shape == (2, 3)


def test_columns_are_chosen_by_name_pattern_and_position(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    (tmp_path / "a.csv").write_text("id,e0,e1,label\n7,1,2,3\n8,4,5,6\n")
    table = arrow.table({"id": [7, 8], "e0": [1.0, 4], "e1": [2.0, 5], "label": [3, 6]})
    parquet.write_table(table, tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        for columns in (["e*"], ["e0", "e1"], ["1:3"], ["1:2", "e1"], ["e0", "e*"]):
            loaded = load_embeddings(tmp_path / name, columns=columns)
            assert loaded.array.tolist() == [[1, 2], [4, 5]]
            assert loaded.left_out == ("id", "label")
        assert load_embeddings(tmp_path / name, columns=["e1", "e0"]).array[0].tolist() == [2, 1]
        assert "there is no column 'z'; there are 4: 'id'" in refused(
            tmp_path / name, columns=["z"]
        )


@pytest.mark.parametrize(
    ("names", "kinds", "asked", "expected"),
    [
        (["x", "y"], "nn", None, [0, 1]),
        (["x0", "x1", "y"], "nnn", None, "'y' may be no feature"),
        (["", "a"], "nn", None, [1]),
        (["__index_level_0__", "a"], "nn", None, [1]),
        (["id", "v"], "nl", None, [1]),
        (["u", "v"], "ll", None, "several columns hold lists: 'u', 'v'"),
        (["u", "v"], "ll", ["u"], [0]),
        (["u", "v"], "ln", ["*"], "one column of lists, or numbers only"),
        (["u", "v"], "on", ["u"], "column 'u' holds no numbers"),
        (["u"], "o", None, "no column holds numbers"),
        (["label"], "n", None, [0]),
    ],
)
def test_which_columns_are_features(names, kinds, asked, expected):
    long = {"n": "number", "l": "list", "o": "other"}
    kinds = [long[kind] for kind in kinds]
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=re.escape(expected)):
            choose_columns(names, kinds, asked)
    else:
        assert choose_columns(names, kinds, asked).positions == expected


def _arrow_cases():
    import pyarrow as arrow

    pair = arrow.list_(arrow.float32())
    return [
        ({"v": arrow.array([[1, 2], [3]], pair)}, "row 1, column 'v': a list of 1 numbers, not 2"),
        ({"v": arrow.array([[1, 2], None], pair)}, "row 1, column 'v': no value"),
        ({"v": arrow.array([[1, 2], [3, None]], pair)}, "row 1, column 'v': a list with a missing"),
        ({"a": arrow.array([1.0, None]), "b": [1, 2]}, "row 1, column 'a': no value"),
        ({"v": arrow.array([], pair)}, "holds no rows"),
        ({"t": ["a", "b"]}, "no column holds numbers"),
        ({"v": arrow.array([[[1.0]], [[2.0]]])}, "no column holds numbers"),
    ]


def test_tables_of_arrow_that_are_wrong_are_one_line(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    for columns, message in _arrow_cases():
        table = arrow.table(columns)
        parquet.write_table(table, tmp_path / "a.parquet")
        write_stream(tmp_path / "a.arrow", table)
        for name in ("a.parquet", "a.arrow"):
            assert message in refused(tmp_path / name)


def test_numbers_of_arrow_that_need_care(tmp_path):
    import decimal

    import pyarrow as arrow

    table = arrow.table(
        {
            "a": arrow.array([decimal.Decimal("1.5"), decimal.Decimal("2.5")]),
            "b": arrow.array([1, 2], arrow.uint8()),
            "c": arrow.array([1.25, 2.25], arrow.float32()).dictionary_encode(),
        }
    )
    write_stream(tmp_path / "a.arrow", table)
    loaded = load_embeddings(tmp_path / "a.arrow").array
    assert loaded.tolist() == [[1.5, 1, 1.25], [2.5, 2, 2.25]]
    assert loaded.dtype == np.float64
    half = arrow.table({"v": arrow.array(list(np.float16(MATRIX)), arrow.list_(arrow.float16()))})
    write_stream(tmp_path / "half.arrow", half)
    loaded = load_embeddings(tmp_path / "half.arrow").array
    assert loaded.dtype == np.float16
    assert np.array_equal(loaded, np.float16(MATRIX))


def test_without_pyarrow_the_extra_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("list.parquet", "a.feather", "stream.arrow", "dataset"):
        with pytest.raises(ImportError, match=r"needs pyarrow: pip install 'dynal_fast\[files\]'"):
            load_embeddings(files[name])
    assert len(NAMES) == load_embeddings(files["a.csv"]).array.shape[1]
