"""Masks on the grids of their images."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.io import volume_files as files
from topolora_monai.errors import DataError
from topolora_monai.io import align, file_geometry, read_labels, read_mask, read_volume, shape_on_grid

SHAPE = files.SHAPE  # slices, rows, columns, all different
TRUTH = (np.random.default_rng(3).random(SHAPE) > 0.6).astype(np.uint8)
AFFINE = files.nifti_affine()
"""Oblique, of three different spacings."""


def nifti(path, values, affine=AFFINE, codes=(1, 1)):
    image = nib.Nifti1Image(values.T, affine)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    nib.save(image, path)
    return path


def image(folder):
    return nifti(folder / "image.nii.gz", files.marked())


def read(mask, like, axis=0):
    return np.stack([read_mask(mask, axis, index, like=like) for index in range(SHAPE[axis])])


def stored_otherwise(order, signs):
    """The truth with its axes in another order and direction, and the affine of the same place."""
    orientation = np.column_stack([order, signs])
    values = nib.orientations.apply_orientation(TRUTH.T, orientation)
    return values.T, AFFINE @ nib.orientations.inv_ornt_aff(orientation, TRUTH.T.shape)


class TestVolumes:
    @pytest.mark.parametrize("order", itertools.permutations(range(3)))
    @pytest.mark.parametrize("signs", itertools.product((1, -1), repeat=3))
    def test_axes_of_another_order_and_direction_are_brought_back(self, tmp_path, order, signs):
        values, affine = stored_otherwise(order, signs)
        mask, like = nifti(tmp_path / "mask.nii", values, affine), image(tmp_path)
        for axis in range(3):
            np.testing.assert_array_equal(read(mask, like, axis), np.moveaxis(TRUTH, axis, 0))
        assert shape_on_grid(mask, like) == SHAPE
        plain = order == (0, 1, 2) and signs == (1, 1, 1)
        assert (align(mask, like).note is None) == plain
        np.testing.assert_array_equal(align(mask, like).bring(read_volume(mask)), TRUTH)

    def test_class_numbers_too(self, tmp_path):
        values, affine = stored_otherwise((0, 1, 2), (1, -1, 1))
        mask = nifti(tmp_path / "mask.nii", values * 2, affine)
        classes, valid = read_labels(mask, {0: 0, 1: 1, 2: 2}, 0, 3, like=image(tmp_path))
        np.testing.assert_array_equal(classes, TRUTH[3] * 2)
        assert valid is None

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda a: a + np.outer([0, 0, 5, 0], [0, 0, 0, 1]), "origin (-12.5, 33.25, -96) mm"),
            (lambda a: a @ np.diag([1, 1, 2, 1]), "spacing 0.9 x 0.7 x 5 mm"),
            (lambda a: a @ np.diag([-1, 1, 1, 1]), "axes LAS"),
            (lambda a: nib.affines.from_matvec(np.diag([0.9, 0.7, 2.5]), a[:3, 3]), "mm, axes RAS"),
            (lambda a: np.eye(4), "spacing 1 x 1 x 1 mm, origin (0, 0, 0) mm, axes RAS"),
        ],
    )
    def test_another_place_is_refused(self, tmp_path, change, words):
        mask, like = nifti(tmp_path / "mask.nii", TRUTH, change(AFFINE)), image(tmp_path)
        with pytest.raises(DataError, match="lies elsewhere") as error:
            read_mask(mask, 0, 0, like=like)
        found, expected = (str(error.value).split(part)[1].split("\n")[0] for part in ("found:", "expected:"))
        assert words in found
        assert "spacing 0.9 x 0.7 x 2.5 mm, origin (-12.5, 33.25, -101) mm, axes RAS turned by" in expected
        assert str(like) in expected
        assert "SimpleITK.Resample" in str(error.value)

    def test_a_twentieth_of_a_voxel_is_noted(self, tmp_path):
        moved = AFFINE @ nib.affines.from_matvec(np.eye(3), [0, 0.05, 0])
        mask, like = nifti(tmp_path / "mask.nii", TRUTH, moved), image(tmp_path)
        assert align(mask, like).note == "mask lies 0.05 voxel from its image, which is passed over"
        np.testing.assert_array_equal(read(mask, like), TRUTH)

    @pytest.mark.parametrize("codes", [(1, 0), (0, 2)])
    def test_rounded_headers_are_alike(self, tmp_path, codes):
        """Quaternions and single precision, and an axis of time of length one."""
        like = nifti(tmp_path / "image.nii", files.marked(), codes=(0, 1))
        mask = nifti(tmp_path / "mask.nii", TRUTH[None], AFFINE + 1e-4 * np.eye(4)[[1, 2, 0, 3]] * [1, 1, 1, 0], codes)
        assert align(mask, like) == (None, None)
        np.testing.assert_array_equal(read(mask, like), TRUTH)

    def test_a_slice_of_its_own_thickness(self, tmp_path):
        like = nifti(tmp_path / "image.nii", files.marked()[:1])
        mask = nifti(tmp_path / "mask.nii", TRUTH[:1], AFFINE @ np.diag([1, 1, 0.4, 1]))
        assert align(mask, like) == (None, None)

    @pytest.mark.parametrize("which", ["mask", "image", "both"])
    def test_sizes_alone_where_a_file_does_not_say(self, tmp_path, which):
        codes = {name: (0, 0) if which in (name, "both") else (1, 1) for name in ("mask", "image")}
        mask = nifti(tmp_path / "mask.nii", TRUTH, AFFINE @ np.diag([3, 3, 3, 1]), codes["mask"])
        like = nifti(tmp_path / "image.nii", files.marked(), codes=codes["image"])
        np.testing.assert_array_equal(read(mask, like), TRUTH)
        note = align(mask, like).note
        assert note is None if which == "both" else note.startswith(f"{which} does not say where it lies")

    def test_pages_do_not_say(self, tmp_path):
        pages = [Image.fromarray(plane) for plane in TRUTH]
        pages[0].save(tmp_path / "mask.tif", save_all=True, append_images=pages[1:])
        assert file_geometry(tmp_path / "mask.tif").affine is None
        np.testing.assert_array_equal(read(tmp_path / "mask.tif", image(tmp_path)), TRUTH)
        assert "sizes alone" in align(tmp_path / "mask.tif", image(tmp_path)).note

    def test_voxels_without_extent_say_nothing(self, tmp_path):
        flat = nib.Nifti1Image(TRUTH.T, None)
        flat.header.set_sform(AFFINE @ np.diag([1, 1, 0, 1]), code=1)
        mask = tmp_path / "mask.nii"
        mask.write_bytes(flat.header.binaryblock + bytes(4) + TRUTH.tobytes())
        assert file_geometry(mask).affine is None

    def test_a_changed_file_is_looked_at_again(self, tmp_path):
        mask, like = nifti(tmp_path / "mask.nii", TRUTH), image(tmp_path)
        align(mask, like)
        nifti(tmp_path / "mask.nii", TRUTH, AFFINE @ np.diag([1, 1, 1.5, 1]))
        mask.touch()
        with pytest.raises(DataError, match="elsewhere"):
            align(mask, like)


class TestAcrossFormats:
    """Everything in one frame, though ITK's points to the left and the back and NIfTI's to the right and the front."""

    @pytest.fixture(params=["nrrd", "mha", "series"])
    def itk_image(self, request, tmp_path):
        if request.param == "series":
            return files.write_series(tmp_path / "series", files.marked())
        return files.write_itk(tmp_path / f"image.{request.param}", files.marked(), files.rotation())

    def as_nifti(self, like, signs=(1, 1, 1)):
        affine = np.diag([-1, -1, 1, 1]) @ files.nifti_affine()
        orientation = np.column_stack([range(3), signs])
        values = nib.orientations.apply_orientation(TRUTH.T, orientation).T
        affine = affine @ nib.orientations.inv_ornt_aff(orientation, TRUTH.T.shape)
        return nifti(like.parent / "mask.nii.gz", values, affine)

    @pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, 1, -1)])
    def test_nifti_label(self, itk_image, signs):
        mask = self.as_nifti(itk_image, signs)
        np.testing.assert_array_equal(read(mask, itk_image), TRUTH)
        assert (align(mask, itk_image).note is None) == (signs == (1, 1, 1))

    def test_frames_are_not_mixed_up(self, itk_image):
        mask = nifti(itk_image.parent / "mask.nii", TRUTH, files.nifti_affine())
        with pytest.raises(DataError, match="elsewhere"):
            align(mask, itk_image)

    def test_itk_label_on_nifti(self, tmp_path):
        like = nifti(tmp_path / "image.nii", files.marked(), np.diag([-1, -1, 1, 1]) @ files.nifti_affine())
        mask = files.write_itk(tmp_path / "mask.nrrd", TRUTH, files.rotation())
        assert align(mask, like) == (None, None)
        np.testing.assert_array_equal(read(mask, like), TRUTH)

    def test_headers_that_do_not_say(self, tmp_path):
        size, voxels = " ".join(map(str, SHAPE[::-1])), TRUTH.tobytes()
        (tmp_path / "a.nrrd").write_bytes(
            f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: {size}\nspacings: 1 1 2\nencoding: raw\n\n".encode() + voxels
        )
        bare = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 2\nDimSize = {size}\n"
        rest = "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        (tmp_path / "b.mha").write_bytes((bare + rest).encode() + voxels)
        (tmp_path / "c.mha").write_bytes((f"{bare}Offset = 0 0 0\n{rest}").encode() + voxels)
        assert file_geometry(tmp_path / "a.nrrd").affine is None
        assert file_geometry(tmp_path / "b.mha").affine is None
        said = "8 x 6 x 5 voxels, spacing 1 x 1 x 2 mm, origin (0, 0, 0) mm, axes LPS"
        assert str(file_geometry(tmp_path / "c.mha")) == said
        for name in ("a.nrrd", "b.mha"):
            np.testing.assert_array_equal(read(tmp_path / name, image(tmp_path)), TRUTH)


class TestRasters:
    PLANE = TRUTH[0]
    GRID = (10, 0, 500_000, 0, -10, 4_649_000)

    def raster(self, path, values, grid=GRID, crs="EPSG:32633", gcps=None):
        rasterio = pytest.importorskip("rasterio")
        profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "gcps": gcps}
        place = {} if grid is None else {"transform": rasterio.Affine(*grid)}
        with rasterio.open(
            path, "w", height=values.shape[0], width=values.shape[1], crs=crs, **profile, **place
        ) as file:
            file.write(values, 1)
        return path

    @pytest.fixture
    def scene(self, tmp_path):
        return self.raster(tmp_path / "scene.tif", self.PLANE.astype(np.float32))

    def test_south_up_and_mirrored_masks_are_brought_back(self, tmp_path, scene):
        rows, columns = self.PLANE.shape
        south_up = (10, 0, 500_000, 0, 10, 4_649_000 - 10 * rows)
        mirrored = (-10, 0, 500_000 + 10 * columns, 0, -10, 4_649_000)
        for grid, stored in ((south_up, self.PLANE[::-1]), (mirrored, self.PLANE[:, ::-1])):
            mask = self.raster(tmp_path / "mask.tif", np.ascontiguousarray(stored), grid)
            np.testing.assert_array_equal(read_mask(mask, like=scene), self.PLANE)
            np.testing.assert_array_equal(read_labels(mask, {0: 0, 1: 1}, like=scene).classes, self.PLANE)
            assert "another order or direction" in align(mask, scene).note

    @pytest.mark.parametrize(
        ("grid", "crs", "words"),
        [
            ((10, 0, 900_000, 0, -10, 4_649_000), "EPSG:32633", "first pixel at (900000, 4649000)"),  # 400 km away
            (GRID, "EPSG:32634", "EPSG:32634"),
            ((20, 0, 500_000, 0, -20, 4_649_000), "EPSG:32633", "pixels of 20 x -20"),
            ((10, 0, 500_002, 0, -10, 4_649_000), "EPSG:32633", "up to 0.2 pixels away"),
        ],
    )
    def test_another_place_is_refused(self, tmp_path, scene, grid, crs, words):
        mask = self.raster(tmp_path / "mask.tif", self.PLANE, grid, crs)
        with pytest.raises(DataError, match="lies elsewhere") as error:
            read_mask(mask, like=scene)
        assert words in str(error.value)
        assert "EPSG:32633, first pixel at (500000, 4649000), pixels of 10 x -10, as" in str(error.value)
        assert "rio warp mask.tif aligned.tif --like scene.tif --resampling nearest" in str(error.value)

    def test_a_twentieth_of_a_pixel_and_a_lacking_crs_are_noted(self, tmp_path, scene):
        mask = self.raster(tmp_path / "mask.tif", self.PLANE, (10, 0, 500_000.5, 0, -10, 4_649_000), crs=None)
        note = align(mask, scene).note
        assert note == "mask lies 0.05 pixel from its image, which is passed over; has no CRS, which its image has"
        assert align(self.raster(tmp_path / "same.tif", self.PLANE), scene) == (None, None)

    def test_sizes_alone_without_georeference(self, tmp_path, scene):
        Image.fromarray(self.PLANE).save(tmp_path / "mask.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", like=scene), self.PLANE)
        assert align(tmp_path / "mask.png", scene).note.startswith("mask does not say where it lies")
        assert align(scene, tmp_path / "mask.png").note.startswith("image does not say where it lies")
        assert align(tmp_path / "mask.png", tmp_path / "mask.png").note is None

    def test_control_points(self, tmp_path):
        rasterio = pytest.importorskip("rasterio")
        rows, columns = self.PLANE.shape

        def points(shift=0.0, south_up=False):
            ends = [(row, column) for row in (0, rows) for column in (0, columns)]
            places = [(10 + column / 100 + shift, 50 - row / 100) for row, column in ends]
            stored = [(rows - row if south_up else row, column) for row, column in ends]
            pairs = zip(stored, places, strict=True)
            return [rasterio.control.GroundControlPoint(*pixel, *place) for pixel, place in pairs]

        scene = self.raster(tmp_path / "scene.tif", self.PLANE.astype(np.float32), None, "EPSG:4326", points())
        same = self.raster(tmp_path / "same.tif", self.PLANE, None, "EPSG:4326", points())
        turned = self.raster(
            tmp_path / "turned.tif", np.ascontiguousarray(self.PLANE[::-1]), None, "EPSG:4326", points(south_up=True)
        )
        moved = self.raster(tmp_path / "moved.tif", self.PLANE, None, "EPSG:4326", points(0.02))
        assert align(same, scene) == (None, None)
        np.testing.assert_array_equal(read_mask(turned, like=scene), self.PLANE)
        with pytest.raises(DataError, match="by control points") as error:
            read_mask(moved, like=scene)
        assert "gdalwarp" in str(error.value)
