"""What `topolora data verify` finds: each defect is injected once."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.data.fakes import draw
from topolora_monai.data import open_dataset, verify


@pytest.fixture
def root(tmp_path):
    return draw("drive", tmp_path / "DRIVE", size=(64, 72))


def defects(root, **options):
    result = verify(open_dataset("drive", root), **options)
    found = [(Path(finding.path).name, finding.message) for finding in result.findings if finding.kind == "defect"]
    assert result.passed == (not found)
    return found


def test_sound_data_pass_and_are_described(root):
    result = verify(open_dataset("drive", root))
    assert result.passed
    assert result.findings == []
    assert [facts.images for facts in result.splits.values()] == [16, 4, 20]
    assert result.splits["test"].sizes == {(64, 72)}
    fov = np.asarray(Image.open(root / "test/mask/01_test_mask.gif")) > 0
    mask = np.asarray(Image.open(root / "test/1st_manual/01_manual1.gif")) > 0
    assert result.splits["test"].foreground[0] == pytest.approx(mask[fov].mean())


def test_pair_of_other_size(root):
    path = root / "training/1st_manual/25_manual1.gif"
    Image.open(path).resize((30, 20)).save(path)
    (found,) = defects(root)
    assert "25_manual1.gif" in found[1]
    assert "differ in size" in found[1]


def test_truncated_picture(root):
    path = root / "test/images/07_test.tif"
    path.rename(path.with_suffix(".hidden"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 72, 3), dtype=np.uint8))
    path.with_suffix(".hidden").unlink()
    jpeg = path.with_suffix(".jpg")
    image.save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:-500])
    (found,) = defects(root)
    assert found[0] == "07_test.jpg"
    assert "damaged or incomplete" in found[1]


def test_mask_of_three_values(root):
    path = root / "test/1st_manual/03_manual1.gif"
    mask = np.asarray(Image.open(path).convert("L")) // 255
    Image.fromarray(mask + (np.arange(72) % 2).astype(np.uint8)).save(path.with_suffix(".png"))
    path.unlink()
    (found,) = defects(root)
    assert "03_manual1.png" in found[1]
    assert "3 values: 0, 1, 2" in found[1]


def test_image_in_training_and_test(root):
    shutil.copy(root / "training/images/22_training.tif", root / "test/images/05_test.tif")
    (found,) = defects(root)
    assert found[0] == "05_test.tif"
    assert "in training and test: scores would leak" in found[1]
    assert "22_training.tif" in found[1]


def test_same_pixels_in_another_file_format(root):
    image = Image.open(root / "training/images/22_training.tif")
    (root / "training/images/23_training.tif").unlink()
    image.save(root / "training/images/23_training.png")
    (found,) = defects(root)
    assert found[0] == "23_training.png"
    assert "same image twice" in found[1]


@pytest.mark.parametrize(("value", "word"), [(0, "background"), (255, "foreground")])
def test_blank_mask(root, value, word):
    path = root / "test/1st_manual/09_manual1.gif"
    Image.fromarray(np.full((64, 72), value, np.uint8)).save(path)
    assert defects(root) == [("09_manual1.gif", f"mask is blank: all of it is {word}")]
    legal = verify(open_dataset("drive", root), blank_is_legal=True)
    assert legal.passed
    assert [finding.kind for finding in legal.findings] == ["note"]


def test_blank_image(root):
    Image.fromarray(np.full((64, 72, 3), 7, np.uint8)).save(root / "test/images/09_test.tif")
    assert defects(root) == [("09_test.tif", "image is blank: all pixels are equal")]


def test_nearly_blank_mask_is_worth_a_note(root):
    mask = np.zeros((64, 72), np.uint8)
    mask[30, 30] = 255
    Image.fromarray(mask).save(root / "test/1st_manual/09_manual1.gif")
    result = verify(open_dataset("drive", root))
    assert result.passed
    assert [finding.message for finding in result.findings] == ["mask is nearly all one class: 0.03% foreground"]


def test_patient_on_both_sides(tmp_path):
    data = open_dataset("chase_db1", draw("chase_db1", tmp_path, size=(64, 72)))
    assert verify(data).passed
    data.items("test")[0]["group"] = data.items("training")[0]["group"]  # items are the data set's own
    (found,) = [finding for finding in verify(data).findings if finding.kind == "defect"]
    assert found.message == "group 02 is divided between test, training"


class TestPlace:
    """Masks of a user's own folder or list against their images, by their headers."""

    PLANE = (np.random.default_rng(0).random((12, 10)) > 0.7).astype(np.uint8)

    def pair(self, folder, grid, crs="EPSG:32633"):
        rasterio = pytest.importorskip("rasterio")
        rng = np.random.default_rng(1)
        image, mask = folder / "images/a.tif", folder / "masks/a.tif"
        for path, values, place in (
            (image, rng.random((12, 10), np.float32), (10, 0, 500_000, 0, -10, 4_649_000)),
            (mask, self.PLANE, grid),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {"driver": "GTiff", "count": 1, "height": 12, "width": 10, "dtype": values.dtype}
            with rasterio.open(path, "w", **profile, crs=crs, transform=rasterio.Affine(*place)) as file:
                file.write(values, 1)
        return folder

    def opened(self, source):
        return verify(open_dataset("folder", source, validation_fraction=0.0, test_fraction=0.0))

    @pytest.mark.parametrize("as_list", [False, True])
    def test_raster_mask_400_km_away(self, tmp_path, as_list):
        source = self.pair(tmp_path / "data", (10, 0, 900_000, 0, -10, 4_649_000))
        if as_list:
            source = source / "list.csv"
            source.write_text("image,label\nimages/a.tif,masks/a.tif\n")
        result = self.opened(source)
        (found,) = result.findings
        assert found.kind == "defect"
        assert not result.passed
        assert "mask lies elsewhere than its image" in found.message
        assert "(500000, 4649000)" in found.message
        assert "(900000, 4649000)" in found.message

    def test_south_up_raster_mask_is_noted(self, tmp_path):
        result = self.opened(self.pair(tmp_path / "data", (10, 0, 500_000, 0, 10, 4_648_880)))
        assert result.passed
        (found,) = result.findings
        assert (found.kind, Path(found.path)) == ("note", tmp_path / "data/masks/a.tif")
        assert "another order or direction" in found.message

    @pytest.mark.parametrize(
        ("spacing", "kind", "words"), [(-1, "note", "another order"), (1.5, "defect", "elsewhere")]
    )
    def test_volume_once_for_all_slices(self, tmp_path, spacing, kind, words):
        values = np.random.default_rng(0).integers(1, 999, (6, 5, 4)).astype(np.int16)
        affine = np.eye(4)
        affine[0] = [spacing, 0, 0, 5 if spacing < 0 else 0]
        for name, content, place in (("images", values, np.eye(4)), ("masks", values > 700, affine)):
            (tmp_path / name).mkdir()
            nib.save(nib.Nifti1Image(content.astype(np.int16), place), tmp_path / name / "a.nii.gz")
        (found,) = self.opened(tmp_path).findings
        assert (found.kind, words in found.message) == (kind, True)


@pytest.fixture
def folder(tmp_path):
    """Ten images and masks of stripes."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(tmp_path / f"set/images/{number}.png")
        Image.fromarray(stripes(0.2)).save(tmp_path / f"set/masks/{number}.png")
    return tmp_path / "set"


def stripes(share, height=24, width=30):
    mask = np.zeros((height, width), np.uint8)
    mask[:, : round(width * share)] = 255
    return mask


def notes(root, **options):
    result = verify(open_dataset("folder", root, **options))
    assert result.passed, result.findings
    return [(Path(finding.path).name, finding.message) for finding in result.findings]


def test_mask_that_is_mostly_foreground_is_noted(folder):
    assert notes(folder) == []
    Image.fromarray(stripes(0.6)).save(folder / "masks/3.png")
    assert notes(folder) == [("3.png", "more than half of the mask is foreground: 60.0%")]


def test_orientation_tags_are_noted(folder):
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(folder / "images/4.png") as image:
        lying = image.transpose(Image.Transpose.ROTATE_90)
    lying.save(folder / "images/4.png", exif=exif)
    assert notes(folder) == [("4.png", "image has orientation tag 6 and is read upright")]
    lying.save(folder / "images/4.png")
    result = verify(open_dataset("folder", folder))
    assert "differ in size" in result.findings[0].message


def test_class_numbers_and_what_nobody_annotated(folder):
    levels = {"0.png": (0, 1, 3), "1.png": (0, 1, 255), "2.png": (0, 2, 255)}
    for name, values in levels.items():
        Image.fromarray(np.tile(np.repeat(np.uint8(values), 10), (24, 1))).save(folder / "masks" / name)
    for name in set(map(str, range(10))) - {"0", "1", "2"}:
        Image.fromarray(stripes(0.2) // 255).save(folder / f"masks/{name}.png")
    result = verify(open_dataset("folder", folder))
    assert sorted(Path(finding.path).name for finding in result.findings) == ["0.png", "1.png", "2.png"]
    assert all("--classes" in finding.message and "--ignore" in finding.message for finding in result.findings)
    data = open_dataset("folder", folder, classes=["background", "cup", "window", "door"], ignore=255)
    assert verify(data).passed
    assert data.describe()["ignore"] == 255
