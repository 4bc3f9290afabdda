"""Fields of view computed from images."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from topolora_monai.data import SPLITS, SyntheticVessels, open_dataset
from topolora_monai.data.fields_of_view import field_of_view, with_computed_fov
from topolora_monai.data.synthetic_vessels import draw_sample
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.io import read_mask, read_picture
from topolora_monai.io.places import user_cache


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_disc_of_a_drawn_fundus():
    image, _, fov = draw_sample(np.random.default_rng(3), size=256)
    found = field_of_view(image.transpose(2, 0, 1).astype(np.float32) / 255)
    assert overlap(found, fov > 0) > 0.985


def test_flips_commute():
    image = draw_sample(np.random.default_rng(4), size=128)[0].transpose(2, 0, 1).astype(np.float32) / 255
    for axes in ((1,), (2,), (1, 2)):
        flipped = np.flip(field_of_view(image), [axis - 1 for axis in axes])
        assert np.array_equal(field_of_view(np.flip(image, axes).copy()), flipped)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_image_without_surround_is_all_inside(level):
    assert field_of_view(np.full((3, 20, 30), level, np.float32)).all()


def test_lights_in_the_surround_are_outside():
    image = np.zeros((3, 64, 64), np.float32)
    image[:, 10:50, 10:50] = 0.5
    image[:, 58:62, 58:62] = 0.9  # a printed letter
    image[:, 28:32, 28:32] = 0.0  # a dark spot in the retina
    found = field_of_view(image)
    assert not found[55:].any()
    assert found[28:32, 28:32].all()


class TestCache:
    @pytest.fixture
    def item(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        image = np.zeros((40, 40, 3), np.uint8)
        image[5:35, 5:35] = 150
        Image.fromarray(image).save(tmp_path / "a.png")
        return {"name": "a", "image": str(tmp_path / "a.png")}

    def test_computed_once(self, item, monkeypatch):
        (first,) = with_computed_fov([item])
        monkeypatch.setattr("topolora_monai.data.fields_of_view.field_of_view", None)
        assert with_computed_fov([item]) == [first]
        assert read_mask(first["fov"])[5:35, 5:35].mean() > 0.98

    def test_computed_again_when_the_image_changes(self, item):
        (first,) = with_computed_fov([item])
        image = np.zeros((40, 40, 3), np.uint8)
        image[20:38, 20:38] = 150
        Image.fromarray(image).save(item["image"])
        (second,) = with_computed_fov([item])
        assert second["fov"] != first["fov"]
        assert read_mask(second["fov"])[:18].sum() == 0

    def test_two_runs_at_a_time(self, item, monkeypatch):
        replace, others = os.replace, []

        def after_another(source, target):
            if not others:  # another run finds nothing in the cache yet, and finishes first
                others.append(None)
                others.append(with_computed_fov([item]))
            replace(source, target)

        monkeypatch.setattr(os, "replace", after_another)
        own = with_computed_fov([item])
        assert own == others[1]
        assert len(list(Path(own[0]["fov"]).parent.iterdir())) == 1

    @pytest.mark.parametrize("kept", [0, 8, 60, -1])
    def test_damaged_file_is_made_again(self, item, kept):
        (first,) = with_computed_fov([item])
        meant = read_mask(first["fov"])
        Path(first["fov"]).write_bytes(Path(first["fov"]).read_bytes()[:kept])
        assert with_computed_fov([item]) == [first]
        assert np.array_equal(read_mask(first["fov"]), meant)

    def test_flipped_bits_are_found(self, item):
        (first,) = with_computed_fov([item])
        whole, meant = Path(first["fov"]).read_bytes(), read_mask(first["fov"])
        for place in range(len(whole)):
            broken = bytearray(whole)
            broken[place] ^= 4
            Path(first["fov"]).write_bytes(broken)
            with_computed_fov([item])
            assert np.array_equal(read_mask(first["fov"]), meant)

    def test_a_file_in_the_place_of_the_cache(self, item, tmp_path, monkeypatch):
        (tmp_path / "taken").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
        (found,) = with_computed_fov([item])
        assert read_mask(found["fov"])[5:35, 5:35].mean() > 0.98

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_a_cache_that_cannot_be_written(self, item, tmp_path, monkeypatch, number):
        save = Image.Image.save

        def full(image, file, **how):
            if Path(file).is_relative_to(tmp_path / "cache"):
                raise OSError(number, os.strerror(number))
            save(image, file, **how)

        monkeypatch.setattr(Image.Image, "save", full)
        (found,) = with_computed_fov([item])
        assert read_mask(found["fov"])[5:35, 5:35].mean() > 0.98
        assert list((tmp_path / "cache/topolora_monai/fov").iterdir()) == []

    def test_nowhere_to_write(self, item, monkeypatch):
        def full(image, file, **how):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
            with_computed_fov([item])

    def test_a_user_without_a_home(self, item, monkeypatch):
        def nowhere():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", nowhere)
        with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
            user_cache()
        assert read_mask(with_computed_fov([item])[0]["fov"])[5:35, 5:35].mean() > 0.98

    def test_unreadable_image_is_left_to_the_checks(self, item):
        Path(item["image"]).write_bytes(b"")
        assert with_computed_fov([item]) == [item]


def test_published_masks_of_drive(real_drive):
    data = open_dataset("drive", real_drive)
    overlaps = [
        overlap(field_of_view(read_picture(item["image"])), read_mask(item["fov"]) > 0)
        for split in SPLITS
        for item in data.items(split)
    ]
    assert len(overlaps) == 40
    assert np.mean(overlaps) >= 0.99
    assert min(overlaps) > 0.98


def test_synthetic_set_agrees_with_its_own(tmp_path):
    items = SyntheticVessels(tmp_path).items("test")
    assert np.mean([overlap(field_of_view(read_picture(i["image"])), read_mask(i["fov"]) > 0) for i in items]) > 0.985
