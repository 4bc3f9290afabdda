"""Colour photographs in DICOM are pictures, whatever they store their colours as."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.io.volume_files import dicom, marked, write_series
from topolora_monai.data import find_images
from topolora_monai.errors import DataError
from topolora_monai.io import image_kind, image_size, is_volume, read_image, read_volume

COLOUR = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(30) * 4, np.arange(40) * 2)[..., None].astype(np.uint8) + np.uint8([0, 20, 40])
PLAIN, JPEG = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.50"


def photograph(values, photometric="RGB", pixels=None, bits=8, **extra):
    """A DICOM file of three values a pixel."""
    settings = {
        "t00280002": ("US", 3), "t00280004": ("CS", photometric), "t00280006": ("US", 0), "t00280100": ("US", bits),
        "t00280101": ("US", bits), "t00280102": ("US", bits - 1), "t00280103": ("US", 0),
        "t7FE00010": ("OW", values.tobytes() if pixels is None else pixels),
    }  # fmt: skip
    return dicom(values[..., 0], (0, 0, 0), slope=1, intercept=0, **settings | extra)


def as_jpeg(values):
    """The same with a JPEG stream in it, in fragments of undefined length."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=95, subsampling="4:2:2")
    packed = stream.getvalue() + b"\0" * (stream.tell() % 2)
    items = b"\xfe\xff\x00\xe0" + bytes(4) + b"\xfe\xff\x00\xe0" + len(packed).to_bytes(4, "little") + packed
    content = photograph(values, "YBR_FULL_422", pixels=b"")
    at = content.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    content = content[:at] + b"\xff" * 4 + items + b"\xfe\xff\xdd\xe0" + bytes(4)
    # the identifier of the syntax is longer by two bytes, which its length and the group's say, too
    at = content.index(PLAIN)
    content = content[: at - 2] + len(JPEG).to_bytes(2, "little") + JPEG + content[at + len(PLAIN) :]
    group = content.index(b"UL\x04\0") + 4
    length = int.from_bytes(content[group : group + 4], "little") + len(JPEG) - len(PLAIN)
    return content[:group] + length.to_bytes(4, "little") + content[group + 4 :]


@pytest.mark.parametrize(
    ("content", "expected", "off"),
    [
        (photograph(COLOUR), COLOUR, 0),
        (photograph(COLOUR, t00280006=("US", 1), pixels=COLOUR.transpose(2, 0, 1).tobytes()), COLOUR, 0),
        (photograph(np.asarray(Image.fromarray(COLOUR).convert("YCbCr")), "YBR_FULL"), COLOUR, 3),
        (as_jpeg(SMOOTH), SMOOTH, 4),
    ],
    ids=["RGB", "planes", "YBR", "JPEG"],
)
def test_photographs_are_pictures(tmp_path, content, expected, off):
    for name in ("a.dcm", "IM0001"):
        path = tmp_path / name
        path.write_bytes(content)
        assert (image_kind(path), image_size(path)) == ("picture", (30, 40))
        image = read_image(path, 3)
        assert image.scaled
        assert np.abs(image.values * 255 - expected.transpose(2, 0, 1)).max() <= off + 1e-4


def test_a_folder_of_photographs_is_one_of_pictures(tmp_path):
    for name in ("left", "right"):
        (tmp_path / f"{name}.dcm").write_bytes(photograph(COLOUR))
    assert not is_volume(tmp_path)
    assert [(item["name"], "slice" in item) for item in find_images(tmp_path)] == [("left", False), ("right", False)]
    assert is_volume(write_series(tmp_path / "series", marked()))


def test_what_is_no_photograph_is_refused_with_advice_that_fits(tmp_path):
    (tmp_path / "film.dcm").write_bytes(photograph(COLOUR, t00280008=("IS", 2), pixels=COLOUR.tobytes() * 2))
    (tmp_path / "deep.dcm").write_bytes(photograph(COLOUR.astype("<u2"), bits=16))
    for name in ("film.dcm", "deep.dcm"):
        with pytest.raises(DataError, match=rf"not grey.*{name}[^$]*each frame[^$]*PNG or TIFF"):
            read_volume(tmp_path / name)
    (tmp_path / "cut.dcm").write_bytes(photograph(COLOUR)[:-500])
    with pytest.raises(DataError, match=r"cut\.dcm"):
        read_image(tmp_path / "cut.dcm")
