"""Recognise a file's format by its content; name the cure for those that are not read."""

import gzip
import os
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from dynal_fast.embeddings.source import FileError, Source, Wanted

Reader = Callable[[Path, Wanted], Source]

SUFFIXES = (
    ".npy",
    ".npz",
    ".pt",
    ".pth",
    ".safetensors",
    ".csv",
    ".csv.gz",
    ".tsv",
    ".tsv.gz",
    ".parquet",
    ".arrow",
    ".feather",
    ".ipc",
)
READABLE = ".npy, .npz, .pt, .safetensors, .csv, .parquet, .arrow or .feather"

_SAVE = "np.save('x.npy', array)"
_IMAGE = "an image; embed the images with a model and save their features"
_UNPACK = "; unpack it first"
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (
        b"\x89HDF\r\n\x1a\n",
        f"an HDF5 file; convert it: {_SAVE.replace('array', 'h5py_file[name]')}",
    ),
    (b"MATLAB 5.0", "a MATLAB file; convert it with scipy.io.loadmat and np.save"),
    (b"MATLAB 7.3", "a MATLAB (HDF5) file; convert it with h5py and np.save"),
    (b"\x89PNG", _IMAGE),
    (b"\xff\xd8\xff", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"II*\0", _IMAGE),
    (b"MM\0*", _IMAGE),
    (b"RIFF", "an image or a sound; embed it with a model and save the features"),
    (b"BZh", f"compressed with bzip2{_UNPACK}"),
    (b"\xfd7zXZ\0", f"compressed with xz{_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd{_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive{_UNPACK}"),
    (b"Rar!", f"a RAR archive{_UNPACK}"),
    (b"PARE", "an encrypted Parquet file; write it without encryption"),
    (b"FEA1", "a Feather file of version 1; write it again with pyarrow.feather.write_feather"),
    (b"ORC", "an ORC file; convert it to .parquet with pyarrow.orc"),
    (b"Obj\x01", "an Avro file; convert it to .parquet"),
    (b"SQLite format 3", "an SQLite database; export a table of numbers as .csv"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file; save the sheet as .csv"),
    (b"%PDF", "a PDF document; it holds no embeddings"),
    (b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` gets the file itself"),
)
_BY_NAME = {
    ".tfrecord": "TFRecords; convert them with tf.data and np.save",
    ".tfrecords": "TFRecords; convert them with tf.data and np.save",
    ".mdb": "an LMDB database; convert its values with lmdb and np.save",
    ".pkl": f"a pickle; load it where you trust it, then {_SAVE}",
    ".pickle": f"a pickle; load it where you trust it, then {_SAVE}",
    ".joblib": f"a joblib pickle; load it where you trust it, then {_SAVE}",
    ".bmp": _IMAGE,
    ".fvecs": "vectors of TEXMEX; read them with np.fromfile and np.save",
    ".bin": "bare numbers; read them with np.fromfile, reshape and np.save",
    ".dat": "bare numbers; read them with np.fromfile, reshape and np.save",
    ".raw": "bare numbers; read them with np.fromfile, reshape and np.save",
}
_JSON = "JSON; convert it to .parquet (pandas.read_json(...).to_parquet(...)) or .npy"
_PICKLE = f"a pickle, which is not run; load it where you trust it, then {_SAVE}"
_TORCH_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def reader_of(path: Path) -> Reader:
    """Return the function that opens ``path``.

    Raises
    ------
    FileError
        It is not a file, it is empty, or its content is of a format that is not read; the message
        says which, and how to convert it.
    """
    head, size = _head(path)
    if not size:
        raise FileError(f"{path} is empty")
    if head.startswith(b"\x93NUMPY"):
        from dynal_fast.embeddings.numpy_files import open_npy

        return open_npy
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _reader_of_zip(path)
    if head.startswith(_TORCH_BEFORE_ZIP):
        from dynal_fast.embeddings.torch_file import open_torch

        return open_torch
    if head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        from dynal_fast.embeddings.arrow_table import (
            open_arrow_file,
            open_arrow_stream,
            open_parquet,
        )

        if head.startswith(b"PAR1"):
            return open_parquet
        return open_arrow_file if head.startswith(b"ARROW1") else open_arrow_stream
    if head[8:9] == b"{" and head[3:8] == b"\0\0\0\0\0":
        from dynal_fast.embeddings.safetensors_file import open_safetensors

        return open_safetensors
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise FileError(f"{path} is {what}")
    if head.startswith(b"\x1f\x8b"):
        return _reader_of_gzip(path)
    if head[257:262] == b"ustar":
        raise FileError(f"{path} is a tar archive{_UNPACK}")
    if head[0] == 0x80 and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        raise FileError(f"{path} is {_PICKLE}")
    return _reader_of_text(path, head)


def _head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a regular file, and its size."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path} is a folder, a pipe or a device, not a file")
        with open(path, "rb") as file:
            return file.read(4096), status.st_size
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error


def _reader_of_zip(path: Path) -> Reader:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:
        raise FileError(f"{path} cannot be read as a zip archive: {error}") from error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        if any("/code/" in name for name in names):
            raise FileError(f"{path} is a TorchScript program; save tensors with torch.save")
        from dynal_fast.embeddings.torch_file import open_torch

        return open_torch
    if names and all(name.endswith(".npy") for name in names):
        from dynal_fast.embeddings.numpy_files import open_npz

        return open_npz
    if "[Content_Types].xml" in names:
        raise FileError(f"{path} is an Office document; save the sheet as .csv")
    inside = f" of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""
    raise FileError(f"{path} is a zip archive{inside}{_UNPACK}")


def _reader_of_gzip(path: Path) -> Reader:
    try:
        with gzip.open(path) as file:
            head = file.read(4096)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be read as gzip: {error}") from error
    if _is_text(head):
        return _reader_of_text(path, head)
    raise FileError(f"{path} is compressed with gzip and holds no text{_UNPACK}")


def _reader_of_text(path: Path, head: bytes) -> Reader:
    suffix = path.suffix.lower()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileError(f"{path} is text in UTF-16; save it as UTF-8")
    if not _is_text(head):
        what = _BY_NAME.get(suffix, f"in a format that is not known; save it as {READABLE}")
        raise FileError(f"{path} is {what}")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"{" or (start == b"[" and suffix not in (".csv", ".tsv", ".gz")):
        raise FileError(f"{path} is {_JSON}")
    if start == b"<":
        raise FileError(f"{path} is HTML or XML; save a table of numbers as .csv")
    if suffix in (".pkl", ".pickle"):
        raise FileError(f"{path} is {_PICKLE}")
    from dynal_fast.embeddings.text_table import open_text

    return open_text


def _is_text(head: bytes) -> bool:
    """Whether bytes from the beginning of a file may be UTF-8, and hold no control characters."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a character may be cut at the end
            return False
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in head)
