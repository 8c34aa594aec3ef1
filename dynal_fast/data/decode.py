"""Image files as 8-bit RGB pixels, without a silent loss: deeper grey is scaled, not clipped."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from dynal_fast.data.source import DatasetCorruptError

if TYPE_CHECKING:
    from PIL.Image import Image

# The modes that Pillow converts to RGB without a loss that anybody would notice.
EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"})
SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, 2  # values of the last two


def decode_image(
    file: Path | bytes,
    image_size: tuple[int, int],
    resize: tuple[int, int] | None = None,
    where: str = "",
    scale: bool = True,
) -> np.ndarray:
    """Return an image file as uint8 ``(3, height, width)``.

    Grey of 16 bits is scaled by ``value >> 8``, as Pillow does with colours of 16 bits. Alpha is
    dropped, and the colours below it stay; palettes and CMYK become RGB; of an animation or of many
    pages the first image counts. The orientation in EXIF is not applied. All of this is what
    torchvision's ``ImageFolder`` does, except that it clips 16-bit grey to white.

    Parameters
    ----------
    file
        Path or content.
    image_size
        ``(height, width)`` of the result.
    resize
        ``(height, width)`` to which the whole image is scaled first, of which the centre is then
        cut out; ``image_size`` by default.
    where
        Names the content in errors; the path by default.
    scale
        False refuses an image of another size instead, before its pixels are decoded.

    Raises
    ------
    DatasetCorruptError
        Pillow cannot read it, or its values have no defined range: floats, signed integers, and
        integers of more than 16 bits.
    """
    from PIL import Image

    height, width = resize or image_size
    with opened_image(file, where) as opened:
        if not scale and opened.size != (width, height):
            shape = f"{opened.height}x{opened.width}"
            raise ValueError(f"expected {height}x{width} pixels, got {shape}")
        image = _as_rgb(opened)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - image_size[0]) // 2, (width - image_size[1]) // 2
    pixels = np.asarray(image)[top : top + image_size[0], left : left + image_size[1]]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def opened_image(file: Path | bytes, where: str = "", what: str = "image") -> Iterator["Image"]:
    """Open a file, or its content, with Pillow; errors in the ``with`` block name the file.

    Raises
    ------
    DatasetCorruptError
        It is no regular file or no image, or the ``with`` block raises.
    """
    from PIL import Image

    try:
        if isinstance(file, Path) and not file.is_file():  # a pipe would wait for ever
            raise ValueError("no regular file" if file.exists() else "no such file")
        stream: Path | IO[bytes] = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(stream) as opened:
            yield opened
    except Exception as error:  # a damaged file makes Pillow raise errors of any kind
        reason = str(error) or repr(error)
        name = where or (what if isinstance(file, bytes) else str(file))
        raise DatasetCorruptError(f"{name} is not a readable {what}: {reason}") from error


def _as_rgb(opened: "Image") -> "Image":
    from PIL import Image

    tags = getattr(opened, "tag_v2", {})  # of a TIFF
    if SIGNED in _values(tags, SAMPLE_FORMAT):
        raise ValueError(f"signed integers (mode {opened.mode}) have no defined range")
    if opened.mode in EIGHT_BITS:
        return opened.convert("RGB")
    # Pillow below 10 gives 16-bit PNG as mode I, and every Pillow portable grey maps, which it
    # scales to 16 bits.
    if opened.mode in SIXTEEN_BITS or (opened.mode == "I" and opened.format in ("PNG", "PPM")):
        values = np.asarray(opened)
        bits = next(iter(_values(tags, BITS_PER_SAMPLE)), 16)  # 12 in some TIFF
        grey = (values >> (bits - 8)).astype(np.uint8)
        # Pillow inverts such grey of 8 bits, but not of 16.
        inverted = WHITE_IS_ZERO in _values(tags, PHOTOMETRIC)
        return Image.fromarray(255 - grey if inverted else grey).convert("RGB")
    raise ValueError(
        f"values of mode {opened.mode} have no defined range; "
        "save it as RGB, or as grey of 8 or 16 bits"
    )


def _values(tags: dict, tag: int) -> tuple:
    """Return the values of a TIFF tag, none if it is not there."""
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)
