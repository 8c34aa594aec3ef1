"""Image files of every mode that people keep, as pixels; what has no defined range is refused."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from dynal_fast.data import DatasetCorruptError, load
from dynal_fast.data.cityscapes import decode_label_map
from dynal_fast.data.decode import decode_image

Image = pytest.importorskip("PIL.Image")
RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
COARSE = np.repeat((RAMP >> 8).astype(np.uint8)[None], 3, axis=0)


def png(rows, bits, colour_type, width):
    """Write a PNG with these bytes in each row, as no library has to support the depth."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def tiff(content, width, height, bits, photometric=1, sample_format=1, order="<"):
    """Write an uncompressed grey TIFF; photometric 0 means that white is 0."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1}
    tags |= {278: height, 279: len(content), 339: sample_format}
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the content starts
    directory = b"".join(
        struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return start + directory + struct.pack(f"{order}I", 0) + content


def twelve_bits(values):
    """Pack pairs of 12-bit values into three bytes."""
    first, second = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(
        np.uint8
    ).tobytes()  # fmt: skip


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SIXTEEN_BITS = {
    "png": png([row.astype(">u2").tobytes() for row in RAMP], 16, 0, 256),
    "tiff": tiff(RAMP.tobytes(), 256, 256, 16),
    "big-endian tiff": tiff(RAMP.astype(">u2").tobytes(), 256, 256, 16, order=">"),
    "pgm": b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes(),
    "tiff, white is zero": tiff((65535 - RAMP).tobytes(), 256, 256, 16, photometric=0),
    "tiff by Pillow": saved(Image.fromarray(RAMP), "TIFF"),
}


@pytest.mark.parametrize("content", SIXTEEN_BITS.values(), ids=SIXTEEN_BITS)
def test_grey_of_16_bits_is_scaled(content):
    assert np.array_equal(decode_image(content, (256, 256)), COARSE)


def test_grey_of_12_bits_is_scaled():
    pixels = decode_image(tiff(twelve_bits(TWELVE), 64, 64, 12), (64, 64))
    assert np.array_equal(pixels, np.stack([TWELVE >> 4] * 3))


def test_a_folder_of_16_bit_images_is_read_as_a_user_would(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "ramp").mkdir(parents=True)
        for name in ("png", "tiff", "pgm"):
            (tmp_path / split / "ramp" / f"{name}.{name}").write_bytes(SIXTEEN_BITS[name])
    dataset = load("image-folder", tmp_path, image_size=(256, 256))
    assert np.array_equal(dataset.train_images[:], np.stack([COARSE] * 3))


def test_colours_of_16_bits_lose_their_low_bytes():
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(">u2")
    content = png([row.tobytes() for row in values], 16, 2, 5)
    assert np.array_equal(decode_image(content, (4, 5)), (values >> 8).transpose(2, 0, 1))
    ppm = b"P6 5 4 65535\n" + values.tobytes()
    assert np.abs(decode_image(ppm, (4, 5)) - (values / 257).transpose(2, 0, 1)).max() < 1
    alpha = np.random.default_rng(1).integers(0, 65536, (4, 5, 2)).astype(">u2")
    grey = decode_image(png([row.tobytes() for row in alpha], 16, 4, 5), (4, 5))
    assert np.array_equal(grey, np.stack([alpha[..., 0] >> 8] * 3))


@pytest.mark.parametrize(("bits", "row"), [(1, 0b1), (2, 0b10), (4, 0b1010)])
def test_grey_of_few_bits_is_spread_over_the_range(bits, row):
    pixels = decode_image(png([bytes([row << (8 - bits)])], bits, 0, 1), (1, 1))
    assert pixels.ravel().tolist() == [round((row & (2**bits - 1)) * 255 / (2**bits - 1))] * 3


RGB = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]
EXACT = {
    "L": (Image.fromarray(GREY), np.stack([GREY] * 3, 2)),
    "LA": (Image.merge("LA", [Image.fromarray(GREY)] * 2), np.stack([GREY] * 3, 2)),
    "1": (Image.fromarray(GREY > 100), np.stack([np.where(GREY > 100, 255, 0)] * 3, 2)),
    "RGB": (Image.fromarray(RGB), RGB),
    "RGBA": (Image.merge("RGBA", [*Image.fromarray(RGB).split(), Image.fromarray(GREY)]), RGB),
}


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_modes_of_8_bits_are_exact_and_alpha_is_dropped(mode, kind):
    image, expected = EXACT[mode]
    assert np.array_equal(decode_image(saved(image, kind), (6, 8)), expected.transpose(2, 0, 1))


def test_palettes_give_their_colours_whether_an_entry_is_transparent_or_not():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    colours = [10, 20, 30, 40, 50, 60, 70, 80, 90]
    image.putpalette(colours)
    expected = np.array(colours, np.uint8).reshape(3, 3)[[[0, 1], [2, 1]]].transpose(2, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's advice to convert to RGBA
        for options in ({}, {"transparency": 1}, {"transparency": bytes([0, 128, 255])}):
            assert np.array_equal(decode_image(saved(image, "PNG", **options), (2, 2)), expected)


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (2, 2), (255, 0, 0, 0))
    assert decode_image(saved(image, "TIFF"), (2, 2))[:, 0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_frames_the_first_counts(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode_image(content, (4, 4))[:, 0, 0].tolist() == [255, 0, 0]


def test_the_orientation_in_exif_is_not_applied():
    image = Image.fromarray(RGB)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    turned = saved(image, "PNG", exif=exif)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 6
    assert np.array_equal(decode_image(turned, (6, 8)), RGB.transpose(2, 0, 1))


SIGNED_RAMP = np.arange(-8, 8, dtype=np.int16).reshape(4, 4)
REFUSED = {
    "floats": (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "mode F"),
    "32 bits": (saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "mode I|signed"),
    "unsigned 32 bits": (tiff(np.ones(16, np.uint32).tobytes(), 4, 4, 32), "mode I "),
    "signed 16 bits": (tiff(SIGNED_RAMP.tobytes(), 4, 4, 16, sample_format=2), "signed integers"),
    "float tiff": (tiff(np.ones(16, np.float32).tobytes(), 4, 4, 32, sample_format=3), "mode F"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_defined_range_is_refused_by_file_and_mode(tmp_path, content, message):
    path = tmp_path / "depth.tiff"
    path.write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=rf"depth.tiff is not .*({message}).*range"):
        decode_image(path, (4, 4))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        SIXTEEN_BITS["png"][:-3000],
        SIXTEEN_BITS["tiff"][:-3000],
        saved(EXACT["RGB"][0], "JPEG")[:-30],
        png([], 8, 0, 4),
        png([b""], 8, 0, 0),
        png([b"\0"] * 2, 8, 0, 2**31 - 1),
        png([b"\0"], 8, 0, 2**28),  # a decompression bomb
    ],
    ids=["empty", "text", "png", "tiff", "jpeg", "no rows", "no columns", "huge", "bomb"],
)
def test_damaged_and_hostile_files_are_named(tmp_path, content):
    path = tmp_path / "damaged.png"
    path.write_bytes(content)
    with pytest.raises(DatasetCorruptError, match=r"damaged.png is not a readable image: ."):
        decode_image(path, (4, 4))
    with pytest.raises(DatasetCorruptError, match=r"damaged.png is not a readable label map: ."):
        decode_label_map(path, (4, 4))


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    folder = tmp_path / "folder.png"
    folder.mkdir()
    gone = tmp_path / "gone.png"
    gone.symlink_to(tmp_path / "nowhere")
    for path, message in ((pipe, "no regular"), (folder, "no regular"), (gone, "no such")):
        with pytest.raises(DatasetCorruptError, match=f"{path.name} .*{message} file"):
            decode_image(path, (4, 4))
    with pytest.raises(DatasetCorruptError, match=r"null is not .*no regular file"):
        decode_image(Path("/dev/null"), (4, 4))


def test_label_ids_are_never_scaled(tmp_path):
    path = tmp_path / "x_gtFine_labelIds.png"
    for content in (
        SIXTEEN_BITS["png"],
        SIXTEEN_BITS["tiff"],
        saved(Image.fromarray(GREY).convert("P"), "PNG"),
        saved(EXACT["1"][0], "PNG"),
        saved(EXACT["LA"][0], "PNG"),
        saved(EXACT["RGBA"][0], "PNG"),
        saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    ):
        path.write_bytes(content)
        with pytest.raises(
            DatasetCorruptError, match=r"one channel of 8 bits \(mode L\), got mode"
        ):
            decode_label_map(path, (4, 4))


def test_an_image_of_another_size_can_be_refused():
    content = saved(EXACT["RGB"][0], "PNG")
    assert decode_image(content, (6, 8), scale=False).shape == (3, 6, 8)
    with pytest.raises(DatasetCorruptError, match=r"x.png is not .*expected 32x32 pixels, got 6x8"):
        decode_image(content, (32, 32), where="x.png", scale=False)
