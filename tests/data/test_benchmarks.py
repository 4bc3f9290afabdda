"""Public data sets: official layouts, splits, variants in the wild, and what is refused."""

import shutil
import zipfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.fakes import RECORDS, draw, touch
from topolora_monai.data import BENCHMARKS, SPLITS, check_items, open_dataset
from topolora_monai.data.benchmark import split_list
from topolora_monai.errors import ConfigError, DataError

DRAWN_EVERY = {"drive": 4, "stare": 2, "chase_db1": 3, "hrf": 4, "sen1floods11": 40, "cvc_clinicdb": 40}
DRAWN_EVERY |= {"topomortar": 20}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def names(data, split) -> list[str]:
    return [item["name"] for item in data.items(split)]


@pytest.mark.parametrize("name", RECORDS)
def test_complete_copy_has_the_published_counts_and_disjoint_splits(name, tmp_path):
    kind = BENCHMARKS[name]
    root = touch(name, tmp_path / "set")
    for scheme, published in kind.facts.counts.items():
        data = open_dataset(name, root, split_scheme=scheme)
        images = {split: [item["image"] for item in data.items(split)] for split in SPLITS}
        if published is not None:
            assert tuple(map(len, images.values())) == published
        assert "partial" not in data.describe()
        everything = list(chain.from_iterable(images.values()))
        assert len(set(everything)) == len(everything)
        assert all("label" in item for split in SPLITS for item in data.items(split))


@pytest.mark.parametrize("name", RECORDS)
def test_part_of_it_is_refused_unless_asked_for_and_then_says_so(name, tmp_path):
    root = draw(name, tmp_path / "set", every=DRAWN_EVERY.get(name, 97))
    with pytest.raises(DataError, match="is incomplete") as error:
        open_dataset(name, root)
    assert "--allow_partial" in str(error.value)
    data = open_dataset(name, root, allow_partial=True)
    items = [item for split in SPLITS for item in data.items(split)]
    assert data.describe()["partial"].startswith(f"{len(items)} of ")
    assert all(data.items(split) for split in SPLITS)
    check_items(items, data.label_values)
    for item in data.items("test")[:2]:  # pairs belong together: structures are darker, or lower in dB
        sample = data._load(item)
        image, label, valid = sample["image"].mean(0), sample["label"][0], sample["fov"][0] > 0
        assert image.shape == label.shape == (40, 48)
        assert image[valid & (label == 1)].mean() < 0.8 * image[valid & (label == 0)].mean()


LAYOUTS = {
    "drive": "test/images",
    "stare": "labels-ah",
    "chase_db1": None,
    "hrf": "mask",
    "kvasir_seg": "Kvasir-SEG/images",
    "cvc_clinicdb": "Ground Truth",
    "isic2017": None,
    "sl_ssdd": None,
    "sos": "train",
    "sen1floods11": "LabelHand",
    "camo": "CAMO-V.1.0-CVIU2019/GT",
    "sbu_shadow": "SBU-shadow/SBU-Test/ShadowMasks",
    "leaf_disease": "data/data/images",
    "massachusetts_roads": "train",
    "topomortar": "train/accurate",
    "trans10k": "train/images",
}


@pytest.mark.parametrize(("name", "absent"), LAYOUTS.items())
def test_other_layouts_are_refused_by_name(name, absent, tmp_path):
    root = draw(name, tmp_path / "set", every=DRAWN_EVERY.get(name, 97))
    if absent is None:  # the whole of it lies one level too deep, under names that mean nothing
        (tmp_path / "other/somewhere").mkdir(parents=True)
        for number, path in enumerate(sorted(root.rglob("*.*"))):
            shutil.copy(path, tmp_path / f"other/somewhere/{number}{path.suffix}")
        root = tmp_path / "other"
    else:
        (root / absent).rename(root / "renamed")
    with pytest.raises(DataError) as error:
        open_dataset(name, root, allow_partial=True)
    message = str(error.value)
    assert f"this is not {BENCHMARKS[name].facts.title}'s layout: {root}" in message
    assert "expected:" in message
    assert "--dataset_dir" in message


@pytest.mark.parametrize("name", RECORDS)
def test_missing_folder_says_how_to_get_it(name, tmp_path):
    with pytest.raises(DataError, match="data folder not found") as error:
        open_dataset(name, tmp_path / "nowhere")
    assert BENCHMARKS[name].facts.access in str(error.value)


@pytest.mark.parametrize("name", RECORDS)
def test_missing_mask_is_named(name, tmp_path):
    root = touch(name, tmp_path / "set")
    record = next(iter(RECORDS[name]()))
    mask = next(path for path, kind in record if kind in ("mask", "signed", "colour"))
    (root / mask).unlink()
    if name == "sl_ssdd":  # its images are joined to the masks, so one less mask is one less image
        with pytest.raises(DataError, match="231 for test"):
            open_dataset(name, root)
        (root / record[0][0]).unlink()
        (root / mask).touch()
        with pytest.raises(DataError, match="mask without image: 000001"):
            open_dataset(name, root)
        return
    with pytest.raises(DataError, match="image without"):
        open_dataset(name, root)


class TestSplitSchemes:
    def test_unknown_scheme_and_annotator_suggest_known_ones(self, tmp_path):
        root = touch("chase_db1", tmp_path)
        with pytest.raises(ConfigError, match=r"unknown split_scheme") as error:
            open_dataset("chase_db1", root, split_scheme="8/21")
        assert "did you mean 8/20" in str(error.value)
        with pytest.raises(ConfigError, match="unknown annotator"):
            open_dataset("chase_db1", root, annotator="third")

    def test_option_of_another_data_set_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="drive has no folds") as error:
            open_dataset("drive", touch("drive", tmp_path), folds=5)
        assert "leave folds out" in str(error.value)

    def test_chase_keeps_children_together(self, tmp_path):
        root = touch("chase_db1", tmp_path)
        for scheme, first_test, last_test in (("8/20", 5, 14), ("20/8", 11, 14), ("8/20-last", 1, 10)):
            data = open_dataset("chase_db1", root, split_scheme=scheme)
            assert names(data, "test") == [f"Image_{n:02d}{e}" for n in range(first_test, last_test + 1) for e in "LR"]
            groups = [{item["group"] for item in data.items(split)} for split in SPLITS]
            assert not groups[0] & groups[1]
            assert not groups[0] & groups[2]

    def test_other_observer(self, tmp_path):
        root = touch("chase_db1", tmp_path)
        for annotator, tag, other in (("first", "_1stHO", "_2ndHO"), ("second", "_2ndHO", "_1stHO")):
            item = open_dataset("chase_db1", root, annotator=annotator).items("test")[0]
            assert item["label"].endswith(f"{tag}.png")
            assert item["second_label"].endswith(f"{other}.png")

    def test_stare_ten_ten_and_leave_one_out(self, tmp_path):
        root = touch("stare", tmp_path)
        assert names(open_dataset("stare", root), "test")[0] == "im0162"
        tested = [names(open_dataset("stare", root, split_scheme="leave-one-out", fold=n), "test") for n in range(20)]
        assert sorted(chain.from_iterable(tested)) == sorted({n for one in tested for n in one})
        assert len(tested) == 20
        assert open_dataset("stare", root, split_scheme="leave-one-out", fold=3).describe()["fold"] == 3
        with pytest.raises(ConfigError, match="0 to 19"):
            open_dataset("stare", root, split_scheme="leave-one-out", fold=20)

    def test_stare_annotators(self, tmp_path):
        root = touch("stare", tmp_path)
        item = open_dataset("stare", root, annotator="vk").items("test")[0]
        assert item["label"].endswith(".vk.ppm.gz")
        assert item["second_label"].endswith(".ah.ppm.gz")

    def test_kvasir_lists(self, tmp_path):
        root = touch("kvasir_seg", tmp_path)
        pranet = set(names(open_dataset("kvasir_seg", root, split_scheme="900/100"), "test"))
        official = set(names(open_dataset("kvasir_seg", root, split_scheme="880/120"), "test"))
        assert pranet == split_list("kvasir_seg_pranet_test")
        assert official == split_list("kvasir_seg_official_validation")
        assert len(pranet & official) == 9

    def test_kvasir_divided_copy(self, tmp_path):
        for part, count in (("train", 800), ("validation", 100), ("test", 100)):
            for kind in ("images", "masks"):
                folder = tmp_path / part / kind
                folder.mkdir(parents=True)
                for number in range(count):
                    (folder / f"{number}.jpg").touch()
        data = open_dataset("kvasir_seg", tmp_path)
        assert data.describe()["split_scheme"] == "800/100/100"
        assert [len(data.items(split)) for split in SPLITS] == [800, 100, 100]
        assert len({name for split in SPLITS for name in names(data, split)}) == 1000
        with pytest.raises(ConfigError, match="divided already"):
            open_dataset("kvasir_seg", tmp_path, split_scheme="900/100")

    def test_sos_sensors(self, tmp_path):
        root = touch("sos", tmp_path)
        data = open_dataset("sos", root, split_scheme="sentinel")
        assert all("/sentinel/" in item["image"] for split in SPLITS for item in data.items(split))

    def test_bolivia_is_held_out(self, tmp_path):
        root = touch("sen1floods11", tmp_path)
        official = open_dataset("sen1floods11", root)
        assert not any("Bolivia" in name for split in SPLITS for name in names(official, split))
        assert all("Bolivia" in n for n in names(open_dataset("sen1floods11", root, split_scheme="bolivia"), "test"))

    def test_trans10k_levels(self, tmp_path):
        root = touch("trans10k", tmp_path)
        hard = open_dataset("trans10k", root, split_scheme="hard")
        assert all("/hard/" in item["image"] for item in hard.items("test"))
        assert len(hard.items("training")) == 5000


class TestVariants:
    def test_one_folder_deeper_upper_case_and_manual1(self, tmp_path):
        draw("drive", tmp_path / "DRIVE/DRIVE")
        (tmp_path / "DRIVE/DRIVE/test/1st_manual").rename(tmp_path / "DRIVE/DRIVE/test/Manual1")
        for path in list((tmp_path / "DRIVE/DRIVE/training/images").iterdir()):
            path.rename(path.with_suffix(".TIF"))
        data = open_dataset("drive", tmp_path / "DRIVE")
        check_items([item for split in SPLITS for item in data.items(split)])

    def test_masks_of_zero_and_one_in_png(self, tmp_path):
        draw("drive", tmp_path)
        for path in list((tmp_path / "test/1st_manual").iterdir()):
            mask = np.asarray(Image.open(path).convert("L")) > 0
            Image.fromarray(mask.astype(np.uint8)).save(path.with_suffix(".png"))
            path.unlink()
        sample = open_dataset("drive", tmp_path, split="test")[0]
        assert sample["label"].unique().tolist() == [0, 1]

    def test_three_valued_mask_is_refused_by_name(self, tmp_path):
        draw("drive", tmp_path)
        path = tmp_path / "test/1st_manual/01_manual1.gif"
        Image.fromarray(np.uint8([[0, 128, 255]]).repeat(16, 1).repeat(40, 0)).save(path.with_suffix(".png"))
        path.unlink()
        data = open_dataset("drive", tmp_path)
        with pytest.raises(DataError, match="3 values: 0, 128, 255") as error:
            check_items(data.items("test"))
        assert "01_manual1.png" in str(error.value)

    def test_two_copies_are_refused(self, tmp_path):
        draw("drive", tmp_path / "a")
        draw("drive", tmp_path / "b")
        with pytest.raises(DataError, match="several copies") as error:
            open_dataset("drive", tmp_path)
        assert "a, b" in str(error.value)

    def test_two_folders_for_one_purpose_are_refused(self, tmp_path):
        draw("stare", tmp_path)
        shutil.copytree(tmp_path / "stare-images", tmp_path / "images")
        with pytest.raises(DataError, match="several folders could be meant"):
            open_dataset("stare", tmp_path)

    def test_zipped_is_unpacked_once(self, tmp_path):
        draw("drive", tmp_path / "unpacked")
        (tmp_path / "set").mkdir()
        for part in ("training", "test"):
            with zipfile.ZipFile(tmp_path / f"set/{part}.zip", "w") as archive:
                for path in sorted((tmp_path / "unpacked" / part).rglob("*.*")):
                    archive.write(path, path.relative_to(tmp_path / "unpacked"))
        data = open_dataset("drive", tmp_path / "set")
        check_items(data.items("test"))
        first = (tmp_path / "set/test").stat().st_mtime_ns
        open_dataset("drive", tmp_path / "set")
        assert (tmp_path / "set/test").stat().st_mtime_ns == first
        assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
            *("test", "test.zip", "training", "training.zip"),
        ]

    def test_damaged_archive_is_named(self, tmp_path):
        (tmp_path / "training.zip").write_bytes(b"PK\x03\x04 not really")
        with pytest.raises(DataError, match=r"archive is damaged.*training\.zip"):
            open_dataset("drive", tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["training.zip"]

    def test_leaf_lists_of_the_archive(self, tmp_path):
        for split, count in (("train", 3), ("val", 1), ("test", 2)):
            rows = ["image,label", *(f"{split}/{n}.jpg,{split}/{n}.png" for n in range(count))]
            (tmp_path / f"{split}.csv").write_text("\n".join(rows))
        data = open_dataset("leaf_disease", tmp_path, allow_partial=True)
        assert [len(data.items(split)) for split in SPLITS] == [3, 1, 2]
        (tmp_path / "train.csv").write_text("file,label\na,b")
        with pytest.raises(DataError, match="lacks a column"):
            open_dataset("leaf_disease", tmp_path, allow_partial=True)
        (tmp_path / "val.csv").unlink()
        (tmp_path / "train.csv").write_text("image,label\na.jpg,b.png")
        with pytest.raises(DataError, match=r"list of a split is missing.*val\.csv"):
            open_dataset("leaf_disease", tmp_path, allow_partial=True)

    def test_roads_of_the_other_copy(self, tmp_path):
        for part in ("train", "val", "test"):
            for kind, suffix in ((part, "tiff"), (f"{part}_labels", "tif")):
                (tmp_path / "tiff" / kind).mkdir(parents=True)
                (tmp_path / "tiff" / kind / f"1_{part}.{suffix}").touch()
        data = open_dataset("massachusetts_roads", tmp_path, allow_partial=True)
        assert [names(data, split) for split in SPLITS] == [["1_train"], ["1_val"], ["1_test"]]

    def test_camo_with_divided_masks(self, tmp_path):
        draw("camo", tmp_path, every=97)
        truth = tmp_path / "CAMO-V.1.0-CVIU2019/GT"
        for part, is_training in (("Train", True), ("Test", False)):
            (truth / part).mkdir()
            for path in list(truth.glob("*.png")):
                if (int(path.stem[-5:]) <= 1000) == is_training:
                    path.rename(truth / part / path.name)
        check_items(open_dataset("camo", tmp_path, allow_partial=True).items("test"))


class TestAsADataset:
    def test_split_length_transforms_and_plot(self, tmp_path):
        root = draw("sen1floods11", tmp_path, every=20)
        data = open_dataset("sen1floods11", root, allow_partial=True, split="validation")
        assert len(data) == len(data.items("validation")) == len(data.items())
        sample = data[0]
        assert sample["image"].shape == (2, 40, 48)
        assert sample["image"].min() >= 0
        assert sample["image"].max() <= 1
        assert (sample["fov"][0, :3] == 0).all()  # not labelled
        assert (sample["fov"][0, 3:] == 1).all()
        assert sample["label"].unique().tolist() == [0, 1]
        picture = data.plot(sample)
        assert picture.size == (48, 40)
        assert picture.getpixel((6, 3)) != (255, 176, 0)
        outline = np.asarray(picture) == (255, 176, 0)
        label = sample["label"][0].numpy() > 0
        assert (outline.all(-1) & ~label).sum() == 0
        assert outline.all(-1).sum() > 20
        doubled = open_dataset("sen1floods11", root, allow_partial=True, transforms=lambda s: s["image"] * 2)
        assert torch.equal(doubled[0], doubled._load(doubled.items()[0])["image"] * 2)

    def test_colours_are_classes(self, tmp_path):
        data = open_dataset("trans10k", draw("trans10k", tmp_path, every=500), allow_partial=True)
        label = data[0]["label"][0]
        assert label.unique().tolist() == [0, 1, 2]
        assert (label[:4] == 2).all()

    def test_unknown_value_is_refused(self, tmp_path):
        root = draw("sl_ssdd", tmp_path, every=40)
        data = open_dataset("sl_ssdd", root, allow_partial=True)
        path = Path(data.items("test")[0]["label"])
        Image.fromarray(np.full((40, 48), 128, np.uint8)).save(path)
        with pytest.raises(DataError, match=r"expected: 0, 255\n  found:    128"):
            check_items(data.items("test"), data.label_values)

    def test_resampled_masks_are_cut(self, tmp_path):
        root = draw("sos", tmp_path, every=97)
        data = open_dataset("sos", root, allow_partial=True)
        path = Path(data.items("test")[0]["label"])
        Image.fromarray(np.uint8([[0, 127, 128, 255]]).repeat(12, 1).repeat(40, 0)).save(path)
        label = data._load(data.items("test")[0])["label"][0]
        assert label[0, [0, 12, 24, 36]].tolist() == [0, 0, 1, 1]

    def test_unknown_split(self, tmp_path):
        with pytest.raises(ConfigError, match="unknown split"):
            open_dataset("drive", touch("drive", tmp_path), split="train")


def test_mortar_has_kinds_of_labels_and_groups_of_test_images(tmp_path):
    root = touch("topomortar", tmp_path)
    data = open_dataset("topomortar", root, annotator="noisy")
    kinds = {split: {Path(item["label"]).parent.name for item in data.items(split)} for split in SPLITS}
    assert kinds == {"training": {"noisy"}, "validation": {"noisy"}, "test": {"accurate"}}
    groups = [item["group"] for item in data.items("test")]
    assert [groups.count(group) for group in dict.fromkeys(groups)] == [50] * 7
    assert (groups[0], groups[50], groups[-1]) == ("indistr", "angles", "occlusion")
    (root / "test/images/071.png").rename(root / "test/images/1.png")
    (root / "test/accurate/071.png").rename(root / "test/accurate/1.png")
    with pytest.raises(DataError, match=r"without a group.*1\.png"):
        open_dataset("topomortar", root)
