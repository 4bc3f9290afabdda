"""A user's own data: what is recognised, how it is split, and what is refused by name."""

import json
import logging
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.io.volume_files import nifti_affine, write_series
from topolora_monai.data.folder import Folder
from topolora_monai.data.items import SPLITS, check_items
from topolora_monai.errors import ConfigError, DataError


def names(data) -> list[list[str]]:
    return [[item["name"] for item in data.items(split)] for split in SPLITS]


def all_items(data) -> list:
    return [item for split in SPLITS for item in data.items(split)]


def mask_of(data) -> dict[str, str]:
    """File name of the mask of each image."""
    return {item["name"]: Path(item["label"]).name for item in all_items(data)}


@pytest.fixture
def write_pair(write_image):
    def write(image: str, label: str) -> None:
        write_image(image, np.zeros((8, 8, 3), np.uint8))
        write_image(label, np.eye(8, dtype=np.uint8))

    return write


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path, write_image):
        for index in range(10):
            write_image(f"set/images/case{index}.png", np.full((8, 8, 3), index, np.uint8))
            write_image(f"set/masks/case{index}.gif", np.eye(8, dtype=np.uint8))
        return tmp_path / "set"

    def test_pairs_by_stem_and_seeded_split(self, folder, caplog):
        with caplog.at_level(logging.INFO):
            data = Folder(folder)
        items = {split: data.items(split) for split in SPLITS}
        counts = [len(items[split]) for split in SPLITS]
        assert all(counts)
        said = "10 images: {} training, {} validation, {} test (asked for 60/20/20 %)".format(*counts)
        assert caplog.messages == [said]
        assert sorted(name for split in names(data) for name in split) == [f"case{i}" for i in range(10)]
        assert all(item["image"].rsplit("/", 1)[1][:5] == item["label"].rsplit("/", 1)[1][:5] for item in items["test"])
        assert names(Folder(folder)) == names(data)
        assert names(Folder(folder, seed=1)) != names(data)

    def test_a_folder_that_grows_moves_nothing_into_validation_or_test(self, folder, write_pair):
        before = names(Folder(folder))
        for number in range(10, 24):
            write_pair(f"set/images/case{number}.png", f"set/masks/case{number}.png")
        training, validation, test = names(Folder(folder))
        assert len(training) + len(validation) + len(test) == 24
        assert not set(before[0]) & {*validation, *test}

    def test_own_split_folders_are_kept(self, folder, tmp_path):
        for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
            for kind, suffix in (("images", "png"), ("labels", "gif")):
                (tmp_path / "own" / split / kind).mkdir(parents=True)
                for number in numbers:
                    source = folder / kind.replace("labels", "masks") / f"case{number}.{suffix}"
                    shutil.copy(source, tmp_path / "own" / split / kind)
        assert names(Folder(tmp_path / "own")) == [["case0", "case1"], ["case2"], ["case3"]]
        shutil.copytree(tmp_path / "own/val", tmp_path / "own/Validation")
        with pytest.raises(DataError, match="several folders could be meant"):
            Folder(tmp_path / "own")

    def test_any_case(self, folder):
        (folder / "images").rename(folder / "Images")
        (folder / "masks").rename(folder / "MASKS")
        (folder / "Images/case3.png").rename(folder / "Images/case3.PNG")
        (folder / "MASKS/case4.gif").rename(folder / "MASKS/case4.GIF")
        assert len(mask_of(Folder(folder))) == 10

    def test_fields_of_view(self, folder, write_image):
        for index in range(10):
            write_image(f"set/FOV/case{index}.png", np.ones((8, 8), np.uint8))
        items = all_items(Folder(folder))
        assert all(Path(item["fov"]).name == f"{item['name']}.png" for item in items)
        (folder / "FOV/case4.png").unlink()
        with pytest.raises(DataError, match="image without field of view: case4"):
            Folder(folder)

    def test_csv_list(self, folder):
        rows = ["image,label,split"] + [
            f"images/case{i}.png,masks/case{i}.gif,{split}" for i, split in enumerate(["train", "train", "val", "test"])
        ]
        (folder / "list.csv").write_text("\n".join(rows))
        data = Folder(folder / "list.csv")
        assert names(data) == [["case0", "case1"], ["case2"], ["case3"]]
        check_items(data.items("training"))

    def test_csv_of_a_spreadsheet(self, folder):
        rows = ["Label , IMAGE,group,fov,note"]
        rows += [f' masks/case{i}.gif,"images/case{i}.png ",p{i // 2},masks/case{i}.gif,"a, b"' for i in range(10)]
        (folder / "list.csv").write_text("\r\n".join(rows) + "\r\n\r\n,,,,\r\n", encoding="utf-8-sig")
        items = all_items(Folder(folder / "list.csv"))
        check_items(items)
        assert {item["name"]: item["group"] for item in items} == {f"case{i}": f"p{i // 2}" for i in range(10)}
        assert all(item["fov"] == item["label"] for item in items)

    def test_json_list(self, folder):
        entry = [{"image": f"images/case{i}.png", "label": f"masks/case{i}.gif", "group": i} for i in range(5)]
        content = {"training": entry[:3], "validation": entry[3:4], "test": entry[4:]}
        (folder / "list.json").write_text(json.dumps(content))
        data = Folder(folder / "list.json")
        assert names(data) == [["case0", "case1", "case2"], ["case3"], ["case4"]]
        assert [item["group"] for item in data.items("training")] == ["0", "1", "2"]
        check_items(all_items(data))

    def test_unlabelled_test_list_is_passed_over(self, folder):
        entry = [{"image": f"images/case{i}.png", "label": f"masks/case{i}.gif"} for i in range(5)]
        (folder / "list.json").write_text(json.dumps({"training": entry, "test": ["images/case9.png"]}))
        assert sorted(mask_of(Folder(folder / "list.json"))) == [f"case{i}" for i in range(5)]

    def test_equal_names_in_a_list_are_told_apart(self, tmp_path, write_pair):
        paths = ["p1/images/eye", "p2/images/eye", "p2/images/other"]
        for path in paths:
            write_pair(f"set/{path}.png", f"set/{path.replace('images', 'masks')}.png")
        rows = [f"{path}.png,{path.replace('images', 'masks')}.png,train" for path in paths]
        (tmp_path / "set/list.csv").write_text("\n".join(["image,label,split", *rows]))
        data = Folder(tmp_path / "set/list.csv", validation_fraction=0, test_fraction=0)
        assert names(data)[0] == ["other", "p1_images_eye", "p2_images_eye"]
        write_pair("set/p2/images/other.tif", "set/p2/masks/other.tif")
        with (tmp_path / "set/list.csv").open("a") as file:
            file.write("\np2/images/other.tif,p2/masks/other.tif,train")
        with pytest.raises(DataError, match="several images are named p2_images_other"):
            Folder(tmp_path / "set/list.csv")

    def test_defects_are_named(self, folder, tmp_path):
        (folder / "masks/case3.gif").rename(folder / "masks/other.gif")
        with pytest.raises(DataError, match="image without mask: case3"):
            Folder(folder)
        shutil.copy(folder / "masks/other.gif", folder / "masks/case3.gif")
        shutil.copy(folder / "images/case3.png", folder / "images/case3.tif")
        with pytest.raises(DataError, match="several files for one image: case3"):
            Folder(folder)
        with pytest.raises(DataError, match="not found"):
            Folder(tmp_path / "nowhere")
        (tmp_path / "bare").mkdir()
        with pytest.raises(DataError, match="an empty folder"):
            Folder(tmp_path / "bare")
        shutil.rmtree(folder / "masks")
        with pytest.raises(DataError, match="not a folder of images and masks"):
            Folder(folder)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.json", "{", "valid JSON"),
            ("a.json", "[]", "no training list"),
            ("a.json", '{"training": [{"image": "a.png"}]}', r"incomplete \(training\[0\]\)"),
            ("a.json", '{"training": [{"image": ["a.png"], "label": "b.png"}]}', "incomplete"),
            ("a.json", '{"training": [], "validation": {}}', "validation is not a list"),
            ("a.json", '{"training": [], "test": [], "testing": []}', "two lists for test"),
            ("a.csv", "image,label\na.png,\n", r"incomplete \(line 2\)"),
            ("a.csv", "image,label,split\na.png,b.png,tset\n", r"unknown split.*line 2"),
            ("a.csv", "image;label\na.png;b.png\n", "other columns"),
            ("a.csv", "", "other columns"),
            ("a.csv", "image,label\na,b.png,c.png\n", r"more cells than columns \(line 2\)"),
            ("a.csv", "image,label\na.png,b.png\na.png,c.png\n", r"listed twice: .*a\.png"),
            ("a.csv", "image,label,split\na.png,b.png,train\n../{0}/a.png,c.png,test\n", "in training and in test"),
            ("a.csv", "image,label,group\na.png,b.png,p\nb.png,c.png,\n", r"image without group: .*b\.png"),
            ("a.csv", "image,label\na\x00.png,b.png,\xe9\n", "cannot be read"),
            ("a.txt", "", "not a datalist"),
        ],
    )
    def test_bad_lists_are_named(self, tmp_path, name, content, message):
        (tmp_path / name).write_text(content.replace("{0}", tmp_path.name), encoding="latin-1")
        with pytest.raises(DataError) as error:
            Folder(tmp_path / name)
        assert error.match(message)
        assert name in str(error.value)

    @pytest.mark.parametrize("part", ["images", "masks"])
    def test_a_link_that_leads_nowhere_is_not_passed_over(self, folder, part):
        file = next((folder / part).iterdir())
        file.unlink()
        file.symlink_to("disk-that-is-not-mounted.png")
        with pytest.raises(DataError, match=f"file not found: {file}"):
            Folder(folder)

    def test_a_folder_with_the_name_of_an_image_is_passed_over(self, folder):
        (folder / "images/old.png").mkdir()
        assert len(all_items(Folder(folder))) == 10

    def test_one_image_is_too_few(self, write_image, tmp_path):
        write_image("set/images/a.png", np.zeros((8, 8), np.uint8))
        write_image("set/masks/a.png", np.zeros((8, 8), np.uint8))
        with pytest.raises(DataError, match="left for training"):
            Folder(tmp_path / "set")


class TestNamesOfMasks:
    @pytest.mark.parametrize(
        "form",
        ["{}_mask", "{}_label", "{}_seg", "{}_Segmentation", "{}_gt", "{}_manual1", "{}_1stHO", "mask_{}", "Label_{}"],
    )
    @pytest.mark.parametrize(("images", "masks"), [("images/", "masks/"), ("", "")])
    def test_usual_forms(self, tmp_path, write_pair, form, images, masks):
        stems = ["Image_01L", "Image_01R", "scan", "scan_2"]
        for stem in stems:
            write_pair(f"set/{images}{stem}.png", f"set/{masks}{form.format(stem)}.gif")
        assert mask_of(Folder(tmp_path / "set")) == {stem: f"{form.format(stem)}.gif" for stem in stems}

    def test_own_stem_wins_where_every_image_has_one(self, tmp_path, write_pair):
        for stem in ("a", "a_seg", "b", "c"):
            write_pair(f"set/images/{stem}.png", f"set/masks/{stem}.png")
        assert mask_of(Folder(tmp_path / "set")) == {stem: f"{stem}.png" for stem in ("a", "a_seg", "b", "c")}

    @pytest.mark.parametrize(("images", "masks"), [("images/", "masks/"), ("", "")])
    def test_two_masks_or_none_are_refused(self, tmp_path, write_pair, write_image, images, masks):
        for stem in "abcd":
            write_pair(f"set/{images}{stem}.png", f"set/{masks}{stem}_mask.png")
        write_image(f"set/{masks}b_seg.png", np.eye(8, dtype=np.uint8))
        with pytest.raises(DataError, match="several files for one mask: b") as error:
            Folder(tmp_path / "set")
        assert "b_mask.png, b_seg.png" in str(error.value)
        (tmp_path / f"set/{masks}b_seg.png").unlink()
        (tmp_path / f"set/{masks}c_mask.png").unlink()
        with pytest.raises(DataError, match="image without mask: c"):
            Folder(tmp_path / "set")

    def test_mask_of_two_images_is_refused(self, tmp_path, write_pair, write_image):
        write_pair("set/images/a.png", "set/masks/a_mask.png")
        write_image("set/images/a_mask.png", np.zeros((8, 8), np.uint8))
        with pytest.raises(DataError, match="one mask fits several images") as error:
            Folder(tmp_path / "set")
        assert "a_mask.png" in str(error.value)

    def test_mask_of_a_mask_is_refused(self, tmp_path, write_pair, write_image):
        write_pair("set/a.png", "set/a_mask.png")
        write_image("set/a_mask_seg.png", np.eye(8, dtype=np.uint8))
        with pytest.raises(DataError, match=r"not clear whether.*a_mask_seg"):
            Folder(tmp_path / "set")

    def test_images_alone_are_refused(self, tmp_path, write_image):
        write_image("set/a.png", np.zeros((8, 8), np.uint8))
        with pytest.raises(DataError, match="not a folder of images and masks"):
            Folder(tmp_path / "set")


class TestAnnotations:
    def test_coco(self, tmp_path, write_image):
        for index in range(6):
            write_image(f"set/images/{index}.png", np.zeros((8, 8, 3), np.uint8))
        content = {
            "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 8} for n in range(6)],
            "annotations": [
                {"id": n, "image_id": n, "category_id": n % 2, "segmentation": [[0, 0, 4, 0, 4, n, 0, n]]}
                for n in range(6)
            ],
            "categories": [{"id": 0, "name": "even"}, {"id": 1, "name": "odd"}],
        }
        (tmp_path / "set/all.JSON").write_text(json.dumps(content))
        for categories, factor in ((None, [1, 1]), (["odd"], [0, 1])):
            items = all_items(Folder(tmp_path / "set/all.JSON", categories=categories))
            check_items(items)
            areas = {int(i["name"]): int((np.asarray(Image.open(i["label"])) > 0).sum()) for i in items}
            assert areas == {n: 4 * n * factor[n % 2] for n in range(6)}

    def test_labelme(self, tmp_path, write_image):
        for index in range(6):
            write_image(f"set/{index}.png", np.zeros((8, 8, 3), np.uint8))
            shapes = [{"label": "v", "shape_type": "line", "points": [[0, 4], [8, 4]]}]
            content = {"imagePath": f"{index}.png", "imageHeight": 8, "imageWidth": 8, "shapes": shapes}
            (tmp_path / f"set/{index}.json").write_text(json.dumps(content))
        items = all_items(Folder(tmp_path / "set", line_width=2))
        check_items(items)
        assert [int((np.asarray(Image.open(i["label"])) > 0).sum()) for i in items] == [16] * 6
        (tmp_path / "set/notes.json").write_text("{}")
        with pytest.raises(DataError, match=r"not a labelme file.*notes"):
            Folder(tmp_path / "set", line_width=2)

    def test_other_json_files_beside_images_and_masks_do_not_matter(self, tmp_path, write_pair):
        for stem in "abc":
            write_pair(f"set/{stem}.png", f"set/{stem}_mask.png")
        (tmp_path / "set/notes.json").write_text("{}")
        assert sorted(mask_of(Folder(tmp_path / "set"))) == ["a", "b", "c"]


class TestFolds:
    @pytest.fixture
    def eyes(self, tmp_path, write_pair):
        for number in range(6):
            for side in "LR":
                write_pair(f"set/images/Image_{number:02d}{side}.png", f"set/masks/Image_{number:02d}{side}.png")
        return tmp_path / "set"

    def test_patients_are_not_divided(self, eyes):
        for settings in ({"folds": 3, "fold": 2}, {"folds": 2}, {}):
            for seed in range(5):
                splits = names(Folder(eyes, group_pattern=r"Image_(\d+)[LR]", seed=seed, **settings))
                patients = [{name[:-1] for name in split} for split in splits]
                assert sum(map(len, patients)) == 6
                assert all(len(split) == 2 * len(part) for split, part in zip(splits, patients, strict=True))
                assert all(patients)

    def test_rounds(self, eyes):
        rounds = [names(Folder(eyes, folds=4, fold=fold)) for fold in range(4)]
        tested = sorted(name for _, _, test in rounds for name in test)
        assert tested == sorted(name for split in rounds[0] for name in split)
        assert [len(split) for split in rounds[0]] == [6, 3, 3]
        assert rounds[0][1] == rounds[1][2]
        assert names(Folder(eyes, folds=4, seed=1)) != rounds[0]

    def test_given_test_images_stay_for_test(self, eyes):
        for kind in ("images", "masks"):
            (eyes / "training").mkdir(exist_ok=True)
            (eyes / "test" / kind).mkdir(parents=True)
            (eyes / kind).rename(eyes / "training" / kind)
            for side in "LR":
                path = f"{kind}/Image_05{side}.png"
                (eyes / "training" / path).rename(eyes / "test" / path)
        rounds = [names(Folder(eyes, folds=5, fold=fold)) for fold in range(5)]
        assert all(test == ["Image_05L", "Image_05R"] for _, _, test in rounds)
        assert len({name for _, validation, _ in rounds for name in validation}) == 10
        assert [len(split) for split in names(Folder(eyes, folds=2))] == [5, 5, 2]
        (eyes / "training/images/Image_05R.png").write_bytes((eyes / "test/images/Image_05R.png").read_bytes())
        (eyes / "training/masks/Image_05R.png").write_bytes((eyes / "test/masks/Image_05R.png").read_bytes())
        with pytest.raises(DataError, match="group 05 are in two splits") as error:
            Folder(eyes, group_pattern=r"Image_(\d+)[LR]")
        assert "Image_05R in training, Image_05L in test" in str(error.value)
        (eyes / "test").rename(eyes / "validation")
        with pytest.raises(DataError, match="images for validation are given"):
            Folder(eyes, folds=3)

    @pytest.fixture
    def write_list(self, eyes):
        def write(folds, test=False, **extra) -> Path:
            paths = sorted(path.name for path in (eyes / "images").iterdir())
            rows = [{"image": f"images/{name}", "label": f"masks/{name}", **extra} for name in paths]
            for row, fold in zip(rows, folds, strict=False):
                row["fold"] = fold
            content = {"training": rows[: len(folds)], **({"testing": rows[len(folds) :]} if test else {})}
            (eyes / "list.json").write_text(json.dumps(content))
            return eyes / "list.json"

        return write

    def test_folds_of_a_datalist(self, write_list):
        path = write_list([0, 0, 1, 1, 2, 2])
        assert names(Folder(path, fold=1)) == [
            ["Image_00L", "Image_00R"],
            ["Image_02L", "Image_02R"],
            ["Image_01L", "Image_01R"],
        ]
        assert names(Folder(path, folds=3, fold=1)) == names(Folder(path, fold=1))
        with pytest.raises(ConfigError, match="another number of folds"):
            Folder(path, folds=4)
        with pytest.raises(ConfigError, match="no such fold"):
            Folder(path, fold=3)

    def test_folds_of_a_datalist_with_test_images(self, write_list):
        splits = names(Folder(write_list([0, 0, 1, 1, 2, 2], test=True), fold=1))
        assert splits[0] == ["Image_00L", "Image_00R", "Image_02L", "Image_02R"]
        assert splits[1] == ["Image_01L", "Image_01R"]
        assert len(splits[2]) == 6

    @pytest.mark.parametrize(
        ("folds", "message"),
        [
            ([0, 1, None, 1], "no fold"),
            ([0, 1, "1"], "no fold"),
            ([0, 2], "without gaps"),
            ([0, 0], "without gaps"),
            ([0, 10**18], "without gaps"),
        ],
    )
    def test_bad_folds_of_a_datalist(self, write_list, folds, message):
        with pytest.raises(DataError, match=message):
            Folder(write_list(folds))

    def test_group_in_two_folds_of_a_datalist(self, write_list):
        with pytest.raises(DataError, match="group p are in two splits"):
            Folder(write_list([0, 0, 1, 1], group="p"))
        with pytest.raises(ConfigError, match="group_pattern is given"):
            Folder(write_list([0, 0, 0, 1], group="p"), group_pattern="(.*)")

    def test_settings_that_do_not_fit(self, eyes):
        with pytest.raises(ConfigError, match="fold without folds"):
            Folder(eyes, fold=1)
        with pytest.raises(ConfigError, match="too few folds"):
            Folder(eyes, folds=0)
        with pytest.raises(DataError, match="does not fit group_pattern"):
            Folder(eyes, group_pattern=r"Image_(\d+)L")


class TestVolumes:
    @pytest.fixture
    def volumes(self, tmp_path):
        """Five volumes of 3 to 7 slices of 6x5."""
        for kind in ("images", "masks"):
            (tmp_path / "set" / kind).mkdir(parents=True)
            for depth in range(3, 8):
                values = np.zeros((5, 6, depth), np.uint8)
                values[1, 2, depth - 1] = 1
                nib.save(nib.Nifti1Image(values, np.diag([1, 1, 2, 1])), tmp_path / f"set/{kind}/v{depth}.nii.gz")
        return tmp_path / "set"

    def test_slices_of_a_volume_stay_together(self, volumes):
        for settings in ({}, {"folds": 4, "fold": 1}):
            data = Folder(volumes, **settings)
            assert len(all_items(data)) == 3 + 4 + 5 + 6 + 7
            groups = [{item["group"] for item in data.items(split)} for split in SPLITS]
            assert sum(map(len, groups)) == 5
            assert all(groups)
        check_items(all_items(data))
        last = next(item for item in all_items(data) if item["name"] == "v5_s004")
        assert (last["axis"], last["slice"], Path(last["label"]).name) == (0, 4, "v5.nii.gz")

    def test_other_axis(self, volumes):
        data = Folder(volumes, axis=1)
        assert len(all_items(data)) == 5 * 6
        assert {item["axis"] for item in all_items(data)} == {1}
        with pytest.raises(ConfigError, match="no such axis"):
            Folder(volumes, axis=3)

    def test_groups_of_patients_win(self, volumes):
        data = Folder(volumes, validation_fraction=0, test_fraction=0, group_pattern=r"(v)\d")
        assert {item["group"] for item in data.items("training")} == {"v"}

    def test_mask_of_other_depth_or_kind(self, volumes, write_image):
        shutil.copy(volumes / "masks/v4.nii.gz", volumes / "masks/v5.nii.gz")
        with pytest.raises(DataError, match=r"do not belong together.*v5") as error:
            Folder(volumes)
        assert "5 slices along axis 0" in str(error.value)
        (volumes / "masks/v5.nii.gz").unlink()
        write_image("set/masks/v5.png", np.zeros((6, 5), np.uint8))
        with pytest.raises(DataError, match="do not belong together") as error:
            Folder(volumes)
        assert "a picture" in str(error.value)

    def test_volume_as_mask_of_a_picture(self, volumes, write_image):
        (volumes / "images/v5.nii.gz").unlink()
        write_image("set/images/v5.png", np.zeros((6, 5), np.uint8))
        with pytest.raises(DataError, match="do not belong together") as error:
            Folder(volumes)
        assert "a volume" in str(error.value)

    def test_dicom_folders_with_masks_in_nifti(self, tmp_path):
        for number in range(4):
            series = tmp_path / f"set/images/case.{number}"
            series.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set/masks").mkdir(exist_ok=True)
            write_series(series, np.zeros((3, 6, 8), np.int16))
            in_place = np.diag([-1, -1, 1, 1]) @ nifti_affine()  # from DICOM's frame to NIfTI's
            mask = nib.Nifti1Image(np.zeros((8, 6, 3), np.uint8), in_place)
            nib.save(mask, tmp_path / f"set/masks/case.{number}_seg.nii.gz")
        items = all_items(Folder(tmp_path / "set"))
        assert sorted(item["name"] for item in items) == [f"case.{n}_s00{i}" for n in range(4) for i in range(3)]
        check_items(items)
