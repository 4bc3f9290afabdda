"""Every way an image or mask comes, and every way it can be broken."""

import gzip

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.io.test_memory import png
from topolora_monai.errors import DataError
from topolora_monai.io import deep_maximum, read_mask, read_picture, write_png

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 14, 3), dtype=np.uint8)
MASK = (RNG.random((10, 14)) > 0.5).astype(np.uint8)


class TestImages:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".PNG", ".TIFF", ".ppm", ".bmp"])
    def test_lossless_formats(self, write_image, suffix):
        image = read_picture(write_image(f"a{suffix}", COLOUR))
        assert np.array_equal(image, COLOUR.transpose(2, 0, 1).astype(np.float32) / 255)

    def test_gzipped(self, write_image):
        path = write_image("a.ppm", COLOUR)
        packed = path.with_suffix(".ppm.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert np.array_equal(read_picture(packed), read_picture(path))

    def test_no_flipped_bit_of_a_gzipped_picture_goes_unnoticed(self, write_image):
        packed = write_image("a.ppm", COLOUR).with_suffix(".ppm.gz")
        sound, draw = gzip.compress(packed.with_suffix("").read_bytes()), np.random.default_rng(1)
        for _ in range(60):
            damaged = bytearray(sound)
            damaged[draw.integers(10, len(sound))] ^= 1 << draw.integers(8)  # behind the header, which has no checksum
            packed.write_bytes(damaged)
            with pytest.raises(DataError, match=r"damaged.*a\.ppm\.gz"):
                read_picture(packed)

    @pytest.mark.parametrize("compression", [None, "deflate"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_sixteen_bit_colour_keeps_all_its_bits(self, tmp_path, channels, compression, caplog):
        stored = np.random.default_rng(0).integers(0, 4096, (10, 14, channels)).astype(np.uint16)
        stored[0, 0] = 4095
        kind = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        photometric = "minisblack" if channels == 1 else "rgb"
        shown = stored[..., 0] if channels == 1 else stored
        tifffile.imwrite(tmp_path / "a.tif", shown, photometric=photometric, compression=compression, **kind)
        expected = np.broadcast_to(stored.astype(np.float32).transpose(2, 0, 1)[:3], (3, 10, 14))
        np.testing.assert_allclose(read_picture(tmp_path / "a.tif"), expected / 65535, rtol=1e-6)
        np.testing.assert_allclose(read_picture(tmp_path / "a.tif", bits=12), expected / 4095, rtol=1e-6)
        luminance = np.tensordot([0.299, 0.587, 0.114], expected, 1)
        np.testing.assert_allclose(read_picture(tmp_path / "a.tif", 1, bits=12)[0], luminance / 4095, rtol=1e-5)
        assert deep_maximum(tmp_path / "a.tif") == 4095
        assert not caplog.records
        np.testing.assert_allclose(read_picture(tmp_path / "a.tif", bits=10), np.minimum(expected / 1023, 1), rtol=1e-6)
        assert "a.tif holds values up to 4095, which are cut at 1023" in caplog.text

    def test_sixteen_bit_colour_of_png(self, tmp_path):
        stored = np.random.default_rng(0).integers(0, 4096, (10, 14, 3)).astype(np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored)
        (tmp_path / "a.png").write_bytes(png(14, 10, rows, depth=16, colour=2))
        expected = stored.astype(np.float32).transpose(2, 0, 1)
        np.testing.assert_allclose(read_picture(tmp_path / "a.png", bits=12), expected / 4095, rtol=1e-6)

    def test_sixteen_bit_colour_in_planes_is_refused(self, tmp_path):
        stored = np.random.default_rng(0).integers(0, 4096, (3, 10, 14)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig="separate")
        with pytest.raises(DataError, match=r"planes of their own: .*a\.tif"):
            read_picture(tmp_path / "a.tif")

    def test_jpeg_and_gif(self, write_image):
        smooth = np.add.outer(np.arange(10), np.arange(14))[..., None].repeat(3, 2).astype(np.uint8) * 5
        for name in ("a.jpg", "a.gif"):
            assert np.abs(read_picture(write_image(name, smooth)) * 255 - smooth.transpose(2, 0, 1)).max() < 12

    def test_grey_is_repeated_and_colour_reduced(self, write_image):
        grey = read_picture(write_image("g.png", COLOUR[..., 0]))
        assert grey.shape == (3, 10, 14)
        assert np.array_equal(grey[0], grey[2])
        assert read_picture(write_image("c.png", COLOUR), channels=1).shape == (1, 10, 14)

    def test_16_bit(self, write_image):
        deep = RNG.integers(0, 65536, (10, 14), dtype=np.uint16)
        for name in ("a.png", "a.tif"):
            image = read_picture(write_image(name, deep))
            assert np.allclose(image[0], deep / 65535, atol=1e-6)

    def test_transparency_is_dropped(self, write_image):
        rgba = np.dstack([COLOUR, np.full((10, 14), 7, np.uint8)])
        assert np.array_equal(
            read_picture(write_image("a.png", rgba)), COLOUR.transpose(2, 0, 1).astype(np.float32) / 255
        )

    def test_floating_point_is_refused(self, write_image):
        with pytest.raises(DataError, match=r"8 nor 16 bit.*a\.tif"):
            read_picture(write_image("a.tif", np.ones((4, 4), np.float32)))


class TestMasks:
    @pytest.mark.parametrize("high", [1, 255, 7])
    @pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
    def test_two_values(self, write_image, high, suffix):
        assert np.array_equal(read_mask(write_image(f"m{suffix}", MASK * high)), MASK)

    def test_palette_is_read_by_index(self, tmp_path):
        image = Image.fromarray(MASK, mode="P")
        image.putpalette([3, 3, 3, 253, 253, 253])
        image.save(tmp_path / "m.gif")
        assert np.array_equal(read_mask(tmp_path / "m.gif"), MASK)

    def test_one_bit_colour_and_transparent(self, tmp_path, write_image):
        Image.fromarray(MASK * 255).convert("1").save(tmp_path / "bit.png")
        assert np.array_equal(read_mask(tmp_path / "bit.png"), MASK)
        triple = np.repeat(MASK[..., None] * 255, 3, 2)
        assert np.array_equal(read_mask(write_image("rgb.png", triple)), MASK)
        rgba = np.dstack([triple, np.full((10, 14), 255, np.uint8)])
        assert np.array_equal(read_mask(write_image("rgba.png", rgba)), MASK)

    def test_jpeg_noise_is_cut(self, write_image):
        block = np.zeros((32, 32), np.uint8)
        block[8:24, 8:24] = 255
        assert np.array_equal(read_mask(write_image("m.jpg", block)), block // 255)

    def test_empty_and_full(self, write_image):
        assert read_mask(write_image("e.png", MASK * 0)).sum() == 0
        assert read_mask(write_image("f.png", MASK * 0 + 255)).min() == 1

    @pytest.mark.parametrize("values", [(0, 128, 255), (0, 1, 2), (100, 200), (1, 2)])
    def test_other_values_are_refused(self, write_image, values):
        mask = RNG.choice(np.array(values, np.uint8), (10, 14))
        with pytest.raises(DataError, match=r"(other values|not clear).*m\.png") as error:
            read_mask(write_image("m.png", mask))
        assert ", ".join(map(str, values)) in str(error.value)
        assert "--classes" in str(error.value)
        assert "--ignore" in str(error.value)

    def test_overlay_is_refused(self, write_image):
        with pytest.raises(DataError, match="colour picture"):
            read_mask(write_image("m.png", COLOUR))


@pytest.mark.parametrize("read", [read_picture, read_mask])
class TestBroken:
    def test_missing(self, read, tmp_path):
        with pytest.raises(DataError, match=r"not found.*none\.png"):
            read(tmp_path / "none.png")

    def test_zero_bytes(self, read, tmp_path):
        (tmp_path / "zero.gif").touch()
        with pytest.raises(DataError, match=r"empty.*zero\.gif"):
            read(tmp_path / "zero.gif")

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".gif", ".ppm"])
    def test_truncated(self, read, write_image, suffix):
        path = write_image(f"cut{suffix}", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        with pytest.raises(DataError, match=r"damaged|known format") as error:
            read(path)
        assert path.name in str(error.value)

    def test_something_else(self, read, tmp_path):
        (tmp_path / "notes.png").write_text("not an image")
        with pytest.raises(DataError, match=r"known format.*notes\.png"):
            read(tmp_path / "notes.png")


def test_written_png_is_whole_and_leaves_nothing_beside(tmp_path):
    deep = RNG.integers(0, 65536, (10, 14), dtype=np.uint16)
    write_png(deep, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), deep)
    with pytest.raises(OSError):
        write_png(deep, tmp_path / "missing" / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
