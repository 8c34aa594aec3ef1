"""Damaged data sets, thousands of kinds of them: read, or refused with the documented error.

A few hundred cases run by default, ``DYNAL_FAST_FUZZ=100000`` runs so many. A case is the same in
every run, so that its number repeats a failure.
"""

import gzip
import io
import lzma
import os
import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, DatasetNotFoundError, load
from dynal_fast.data.cifar_pickle import loads
from dynal_fast.data.cityscapes import decode_label_map
from dynal_fast.data.decode import decode_image
from tests.test_data_cifar import CIFAR10, files, python2_pickle, write_archive, write_folder

Image = pytest.importorskip("PIL.Image")
CASES = int(os.environ.get("DYNAL_FAST_FUZZ", "200"))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
# Values that headers do not expect, in either byte order.
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Return the content with one to four changes of the kinds that find faults."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(changed) + 1)) if random.random() < 0.5 else 0
        # Half of the changes are near the beginning, where formats say what they are.
        at = at or int(random.integers(min(len(changed), 200) + 1))
        kind = random.integers(6)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            del changed[at : at + int(random.integers(1, 64))]
        elif kind == 2:
            changed[at:at] = random.bytes(int(random.integers(1, 16)))
        elif kind == 3:
            number = NUMBERS[random.integers(len(NUMBERS))]
            changed[at : at + 4] = number.to_bytes(4, ("little", "big")[random.integers(2)])
        elif kind == 4:
            changed[at:at] = changed[at : at + int(random.integers(1, 256))]
        elif at < len(changed):
            changed[at] ^= 1 << int(random.integers(8))
    return bytes(changed)


def image(mode: str, kind: str, **options: object) -> bytes:
    made = Image.fromarray(PIXELS)
    if mode == "I;16":
        made = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    elif mode != "RGB":
        made = made.convert(mode)
    stream = io.BytesIO()
    made.save(stream, kind, **options)
    return stream.getvalue()


IMAGES = {
    "png": image("RGB", "PNG"),
    "palette png": image("P", "PNG", transparency=3),
    "grey png of 16 bits": image("I;16", "PNG"),
    "jpeg": image("RGB", "JPEG"),
    "cmyk jpeg": image("CMYK", "JPEG"),
    "tiff": image("RGB", "TIFF"),
    "lzw tiff": image("LA", "TIFF", compression="tiff_lzw"),
    "grey tiff of 16 bits": image("I;16", "TIFF"),
    "bmp": image("RGB", "BMP"),
    "ppm": image("RGB", "PPM"),
    "gif": image("P", "GIF"),
    "webp": image("RGB", "WEBP"),
    "label map": image("L", "PNG"),
}


def idx_files() -> dict[str, bytes]:
    header = bytes([0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 3])
    images, labels = header + bytes(range(36)), bytes([0, 0, 8, 1, 0, 0, 0, 4, 0, 9, 1, 2])
    return {
        "train-images-idx3-ubyte": images,
        "train-labels-idx1-ubyte.gz": gzip.compress(labels),
        "t10k-images-idx3-ubyte.gz": gzip.compress(images),
        "t10k-labels-idx1-ubyte": labels,
    }


def mat_files() -> dict[str, bytes]:
    savemat = pytest.importorskip("scipy.io").savemat
    written = {}
    for name, packed in (("train_32x32.mat", True), ("test_32x32.mat", False)):
        stream = io.BytesIO()
        images = np.arange(2 * 3072, dtype=np.uint8).reshape(32, 32, 3, 2)
        savemat(stream, {"X": images, "y": np.array([[1.0], [10.0]])}, do_compression=packed)
        written[name] = stream.getvalue()
    return written


def jpeg_archive(pack: Callable[[bytes], bytes]) -> bytes:
    stream = io.BytesIO()
    small = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 8, 7)).save(small, "JPEG")
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                member = tarfile.TarInfo(f"{split}/{name}/1.jpg")
                member.size, member.pax_headers = len(small.getvalue()), {"comment": "x" * 50}
                archive.addfile(member, io.BytesIO(small.getvalue()))
    return pack(stream.getvalue())


def write(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def fuzz(contents: dict[str, bytes], folder: Path, read: Callable[[], object], share: int) -> None:
    """Damage one of the files at a time and read; fail on any but the documented errors."""
    names = sorted(contents)
    refused = 0
    for case in range(max(1, CASES // share)):
        random = np.random.default_rng(case)
        name = names[random.integers(len(names))]
        (folder / name).write_bytes(damaged(contents[name], random))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns of oddities
                read()
        except (DatasetCorruptError, DatasetNotFoundError):
            refused += 1
        except Exception as error:
            pytest.fail(f"case {case} of {name}: {error!r}")
        finally:
            (folder / name).write_bytes(contents[name])
    assert refused > 0
    read()  # what is whole is read still


@pytest.mark.parametrize("kind", IMAGES)
def test_damaged_images(tmp_path, kind):
    path = tmp_path / "image"
    path.write_bytes(IMAGES[kind])
    if kind == "label map":
        fuzz({"image": IMAGES[kind]}, tmp_path, lambda: decode_label_map(path, (4, 4)), 20)
    else:
        fuzz({"image": IMAGES[kind]}, tmp_path, lambda: decode_image(path, (4, 4)), 20)


def test_damaged_idx_files(tmp_path):
    write(tmp_path, idx_files())
    fuzz(idx_files(), tmp_path, lambda: load("mnist", tmp_path, verify=False), 4)


def test_damaged_mat_files(tmp_path):
    write(tmp_path, mat_files())
    fuzz(mat_files(), tmp_path, lambda: load("svhn", tmp_path, verify=False), 10)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_damaged_archives_of_jpegs(tmp_path, pack):
    contents = {"cifar10_jpegs.tar": jpeg_archive(pack)}
    write(tmp_path, contents)
    fuzz(contents, tmp_path, lambda: load("cifar10-jpeg", tmp_path, verify=False), 16)


def test_damaged_archives_of_batches(tmp_path):
    write_archive(tmp_path, CIFAR10, files(CIFAR10))
    contents = {CIFAR10.archive: (tmp_path / CIFAR10.archive).read_bytes()}
    fuzz(contents, tmp_path, lambda: load("cifar10", tmp_path, verify=False), 20)


def test_damaged_batches(tmp_path):
    write_folder(tmp_path, CIFAR10, files(CIFAR10))
    folder = tmp_path / CIFAR10.folder
    fuzz(files(CIFAR10), folder, lambda: load("cifar10", tmp_path, verify=False), 10)


BATCH = {b"labels": [1, 2], b"data": np.arange(8, dtype=np.uint8).reshape(2, 4), b"names": [b"a"]}


@pytest.mark.parametrize(
    "write", [python2_pickle, *[lambda b, p=p: pickle.dumps(b, p) for p in range(4)]]
)
def test_damaged_pickles(write):
    content = write(BATCH)
    loads(content)
    refused = 0
    for case in range(CASES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escape sequences in damaged strings
                loads(damaged(content, np.random.default_rng(case)))
        except pickle.UnpicklingError:
            refused += 1
        except Exception as error:
            pytest.fail(f"case {case}: {error!r}")
    assert refused > 0


def test_damaged_caches(tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    write(data, {"cifar10_jpegs.tar": jpeg_archive(bytes)})

    def read():
        return load("cifar10-jpeg", data, verify=False, cache_dir=cache)

    read()
    (entry,) = cache.iterdir()
    fuzz({path.name: path.read_bytes() for path in entry.iterdir()}, entry, read, 10)
