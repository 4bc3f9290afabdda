"""DRIVE's layout, and the synthetic vessels."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.measure import label
from skimage.morphology import skeletonize

from topolora_monai.data import DATASET_NAMES, Drive, SyntheticVessels, check_items, open_dataset
from topolora_monai.data.inputs import find_images
from topolora_monai.data.items import SPLITS
from topolora_monai.data.synthetic_vessels import draw_sample
from topolora_monai.errors import ConfigError, DataError, OutputError
from topolora_monai.io import read_mask


class TestDrive:
    def test_splits(self, fake_drive):
        data = Drive(fake_drive, allow_partial=True)
        names = {split: [item["name"] for item in data.items(split)] for split in SPLITS}
        assert names["validation"] == ["21_training", "26_training"]
        assert names["training"] == [f"{n}_training" for n in (22, 23, 24, 25)]
        assert names["test"] == ["01_test", "02_test"]
        assert "second_label" in data.items("test")[0]

    def test_real_files(self, real_drive):
        data = Drive(real_drive)
        counts = {split: len(data.items(split)) for split in SPLITS}
        assert counts == {"training": 16, "validation": 4, "test": 20}
        check_items(data.items("validation") + data.items("test"))
        first = data.items("test")[0]
        label_, second, fov = (read_mask(first[key]) for key in ("label", "second_label", "fov"))
        assert label_.shape == (584, 565)
        inside = fov > 0
        overlap = 2 * (label_ & second)[inside].sum() / (label_[inside].sum() + second[inside].sum())
        assert 0.75 < overlap < 0.85  # two people agree this well

    def test_missing_empty_and_foreign_folders(self, fake_drive, tmp_path):
        with pytest.raises(DataError, match=r"not found.*nowhere"):
            Drive(tmp_path / "nowhere")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="an empty folder"):
            Drive(tmp_path / "empty")
        with pytest.raises(DataError, match="layout"):
            Drive(fake_drive / "training")

    def test_image_without_mask(self, fake_drive):
        (fake_drive / "training/1st_manual/25_manual1.gif").unlink()
        with pytest.raises(DataError, match="image without mask: 25"):
            Drive(fake_drive, allow_partial=True).items("training")

    def test_two_masks(self, fake_drive):
        folder = fake_drive / "training/1st_manual"
        shutil.copy(folder / "25_manual1.gif", folder / "25_manual1.png")
        with pytest.raises(DataError, match=r"several files for one mask: 25") as error:
            Drive(fake_drive, allow_partial=True).items("training")
        assert "25_manual1.gif, 25_manual1.png" in str(error.value)

    def test_other_size_is_found_before_training(self, fake_drive):
        path = fake_drive / "training/1st_manual/25_manual1.gif"
        Image.open(path).convert("L").resize((10, 10), Image.Resampling.BICUBIC).save(path)  # many values, too
        with pytest.raises(DataError, match="differ in size") as error:
            check_items(Drive(fake_drive, allow_partial=True).items("training"))
        assert "72x64" in str(error.value)
        assert "10x10" in str(error.value)
        assert "25_manual1.gif" in str(error.value)


class TestSyntheticVessels:
    @pytest.fixture(scope="class")
    def samples(self):
        return [draw_sample(np.random.default_rng([0, number])) for number in range(2)]

    def test_trees_are_connected_and_widths_are_as_promised(self, samples):
        for _, mask, fov in samples:
            assert mask.shape == (512, 512)
            assert label(mask > 0, connectivity=2).max() == 1
            widths = 2 * distance_transform_edt(mask > 0)[skeletonize(mask > 0)]
            assert np.percentile(widths, 5) < 4
            assert 7 < np.percentile(widths, 95) < 14
            assert 0.05 < (mask > 0)[fov > 0].mean() < 0.3

    def test_surround_is_dark_and_light_uneven(self, samples):
        for image, mask, fov in samples:
            assert image[fov == 0].mean() < 20
            background = image[..., 0][(fov > 0) & (mask == 0)]
            assert np.percentile(background, 95) - np.percentile(background, 5) > 25

    def test_vessels_are_darker_than_their_surroundings(self, samples):
        for image, mask, fov in samples:
            near = (distance_transform_edt(mask == 0) < 6) & (mask == 0) & (fov > 0)
            green = image[..., 1].astype(float)
            assert green[near].mean() - green[mask > 0].mean() > 8

    def test_seeded(self, samples):
        again = draw_sample(np.random.default_rng([0, 0]))
        assert all(np.array_equal(a, b) for a, b in zip(again, samples[0], strict=True))
        assert not np.array_equal(samples[0][1], samples[1][1])

    def test_made_once_at_first_use(self, tmp_path, monkeypatch):
        drawn = []

        def quick(rng, size=512):
            drawn.append(size)
            return tuple(np.zeros((16, 16, 3)[:n], np.uint8) for n in (3, 2, 2))

        monkeypatch.setattr("topolora_monai.data.synthetic_vessels.draw_sample", quick)
        counts = [len(SyntheticVessels(tmp_path / "s").items(split)) for split in SPLITS]
        assert counts == [16, 4, 4]
        assert len(drawn) == 24
        SyntheticVessels(tmp_path / "s")
        assert len(drawn) == 24
        assert [path.name for path in (tmp_path / "s").iterdir()] == ["v1-seed0"]

    def test_damaged_images_are_drawn_again(self, tmp_path, monkeypatch):
        def quick(rng, size=512):
            return tuple(np.full((16, 16, 3)[:n], rng.integers(255), np.uint8) for n in (3, 2, 2))

        monkeypatch.setattr("topolora_monai.data.synthetic_vessels.draw_sample", quick)
        SyntheticVessels(tmp_path)
        files = sorted((tmp_path / "v1-seed0").rglob("*.png"))
        whole = [file.read_bytes() for file in files]
        files[3].write_bytes(whole[3][:-20])
        files[40].write_bytes(b"")
        files[50].unlink()
        SyntheticVessels(tmp_path)
        assert [file.read_bytes() for file in files] == whole

    def test_drawn_for_the_process_where_the_cache_cannot_be_written(self, tmp_path, monkeypatch):
        def quick(rng, size=512):
            return tuple(np.full((16, 16, 3)[:n], 255, np.uint8) for n in (3, 2, 2))

        monkeypatch.setattr("topolora_monai.data.synthetic_vessels.draw_sample", quick)
        (tmp_path / "taken").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
        items = open_dataset("synthetic_vessels").items("test")
        assert [np.unique(read_mask(item["label"])).tolist() for item in items] == [[1]] * 4

    def test_full_disk_is_one_sentence(self, tmp_path, monkeypatch):
        def full(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("PIL.Image.Image.save", full)
        with pytest.raises(OutputError, match="free some space, or give another --dataset_dir"):
            SyntheticVessels(tmp_path / "s")
        assert list((tmp_path / "s").iterdir()) == []

    def test_interrupted_start_leaves_no_half_set(self, tmp_path, monkeypatch):
        def interrupted(rng, size=512):
            raise KeyboardInterrupt

        monkeypatch.setattr("topolora_monai.data.synthetic_vessels.draw_sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SyntheticVessels(tmp_path / "s")
        assert list((tmp_path / "s").iterdir()) == []

    def test_unwritable_folder(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="stands where"):
            SyntheticVessels(tmp_path / "file")
        with pytest.raises(OutputError, match="cannot write the synthetic images"):
            SyntheticVessels(tmp_path / "file" / "below")


class TestRegistry:
    def test_unknown_name_suggests_a_known_one(self):
        with pytest.raises(ConfigError, match="did you mean drive") as error:
            open_dataset("drvie")
        assert all(name in str(error.value) for name in DATASET_NAMES)

    def test_folder_is_asked_for(self):
        with pytest.raises(ConfigError, match="--dataset_dir"):
            open_dataset("drive")

    def test_by_name(self, fake_drive):
        assert isinstance(open_dataset("drive", fake_drive, allow_partial=True), Drive)


class TestFindImages:
    @pytest.fixture
    def scans(self, tmp_path, write_image):
        for name in ("b.png", "a.JPG", "c.tif"):
            write_image(f"scans/{name}", np.zeros((4, 4, 3), np.uint8))
        (tmp_path / "scans/notes.txt").touch()
        return tmp_path / "scans"

    def test_file_folder_and_glob(self, scans):
        assert [i["name"] for i in find_images(scans)] == ["a", "b", "c"]
        assert [i["name"] for i in find_images(scans / "b.png")] == ["b"]
        assert [i["name"] for i in find_images(f"{scans}/*.tif")] == ["c"]

    def test_brackets_that_are_part_of_names(self, write_image, tmp_path, monkeypatch):
        image = np.zeros((4, 4, 3), np.uint8)
        for name in ("[1] sub/a.png", "[1] sub/b.tif", "[1] sub/[2]/c.png", "plain/d[3]x.png", "plain/d.png"):
            write_image(name, image)

        def found(pattern):
            return [Path(item["image"]).relative_to(tmp_path).as_posix() for item in find_images(pattern)]

        for root in (f"{tmp_path}/", "", "./"):
            monkeypatch.chdir(tmp_path)
            assert found(f"{root}[1] sub/*.png") == ["[1] sub/a.png"]
            assert found(f"{root}[1] sub/[ab].*") == ["[1] sub/a.png", "[1] sub/b.tif"]
            assert found(f"{root}[1] sub/[2]/*") == ["[1] sub/[2]/c.png"]
            assert found(f"{root}*/[2]/*.png") == ["[1] sub/[2]/c.png"]
            assert found(f"{root}plain/d[3]*.png") == ["plain/d[3]x.png"]
            assert found(f"{root}plain/[cd].png") == ["plain/d.png"]
        assert [item["name"] for item in find_images("[1] sub")] == ["a", "b"]
        with pytest.raises(DataError, match="no image"):
            find_images("[1] sub/*.gif")

    def test_brackets_that_could_mean_two_things(self, write_image, tmp_path):
        for folder in ("1 sub", "[1] sub"):
            write_image(f"{folder}/a.png", np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(DataError, match="two things") as error:
            find_images(f"{tmp_path}/[1] sub/*.png")
        assert "1 sub/a.png" in str(error.value)
        assert "[1] sub/a.png" in str(error.value)
        assert len(find_images(f"{tmp_path}/[[]1] sub/*.png")) == 1

    def test_no_file_at_all(self, tmp_path):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(DataError, match="not a file") as error:
            find_images(tmp_path / "a.png")
        assert "a named pipe" in str(error.value)
        for name in ("n" * 5000, "a\0.png"):
            with pytest.raises(DataError, match="no image") as error:
                find_images(tmp_path / name)
            assert len(str(error.value)) < 600

    def test_equal_stems_keep_their_suffixes(self, scans, write_image):
        write_image("scans/b.tif", np.zeros((4, 4, 3), np.uint8))
        assert [i["name"] for i in find_images(scans)] == ["a", "b.png", "b.tif", "c"]

    def test_nothing_found(self, tmp_path):
        with pytest.raises(DataError, match="no image"):
            find_images(tmp_path)
        with pytest.raises(DataError, match="no image"):
            find_images(tmp_path / "*.png")

    def test_colliding_outputs_are_refused(self, scans, write_image):
        write_image("scans/deeper/b.png", np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(DataError, match="same file name"):
            find_images(f"{scans}/**/b.png")
