"""Volumes of every format: values, slices, geometry of results, and every way one can be broken."""

import gzip
import os
import struct
import sys

import itk
import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.io.volume_files import (
    INTERCEPT,
    MARKER,
    ORIGIN,
    SHAPE,
    SLOPE,
    dicom,
    element,
    itk_image,
    marked,
    nifti_affine,
    position,
    read_itk,
    rotation,
    write_itk,
    write_nifti,
    write_series,
)
from topolora_monai.errors import ConfigError, DataError, OutputError
from topolora_monai.io import volumes
from topolora_monai.io.volumes import (
    default_axis,
    is_volume,
    read_slice,
    read_volume,
    slice_count,
    volume_output_name,
    volume_shape,
    write_volume,
)

PLANE_TURN = np.array([[np.cos(0.4), -np.sin(0.4), 0], [np.sin(0.4), np.cos(0.4), 0], [0, 0, 1.0]])

ITK_SOURCES = {
    "series": lambda folder: write_series(folder / "series", marked()),
    "nrrd": lambda folder: write_itk(folder / "a.nrrd", marked(), rotation()),
    "left-handed": lambda folder: write_itk(folder / "a.nrrd", marked(), rotation() * [1, 1, -1]),
    "mha": lambda folder: write_itk(folder / "a.mha", marked(), rotation() * [-1, 1, 1]),
    "2-D mha": lambda folder: write_itk(folder / "a.mha", marked()[1], PLANE_TURN),
}


@pytest.fixture(params=list(ITK_SOURCES))
def itk_source(request, tmp_path):
    return ITK_SOURCES[request.param](tmp_path)


class TestNifti:
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
    @pytest.mark.parametrize("image_type", [nib.Nifti1Image, nib.Nifti2Image])
    def test_values_are_rescaled_and_in_order_slice_row_column(self, tmp_path, name, image_type):
        path = write_nifti(tmp_path / name, marked(), nifti_affine(), image_type)
        volume = read_volume(path)
        assert volume.dtype == np.float32
        assert np.array_equal(volume, marked() * SLOPE + INTERCEPT)

    def test_nan_is_kept(self, tmp_path):
        values = np.ones((2, 3, 4), np.float32)
        values[0, 1, 2] = np.nan
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
        assert np.array_equal(read_volume(tmp_path / "a.nii"), values.T, equal_nan=True)

    def test_big_endian_labels(self, tmp_path):
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(np.int16)
        nib.save(nib.Nifti1Image(marked().T, np.eye(4), header), tmp_path / "a.nii")
        assert np.array_equal(read_volume(tmp_path / "a.nii"), marked())
        write_volume(marked().astype(np.uint16), tmp_path / "a.nii", tmp_path / "b.nii.gz")
        assert np.array_equal(read_volume(tmp_path / "b.nii.gz"), marked())

    @pytest.mark.parametrize("stored", [(8, 6), (8, 6, 1), (8, 6, 1, 1)])
    def test_one_slice(self, tmp_path, stored):
        plane = marked()[1]
        nib.save(nib.Nifti1Image(plane.T.reshape(stored), nifti_affine()), tmp_path / "a.nii.gz")
        assert np.array_equal(read_volume(tmp_path / "a.nii.gz"), plane[None])
        assert default_axis(tmp_path / "a.nii.gz") == 0
        write_volume((plane > 5000)[None].astype(np.uint8), tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
        assert nib.load(tmp_path / "b.nii.gz").shape == stored

    @pytest.mark.parametrize("mirrored", [False, True])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("codes", [("scanner", "aligned"), (1, 0), (0, 2), (0, 0)])
    def test_result_has_the_geometry_of_its_source(self, tmp_path, mirrored, dtype, codes):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine(mirrored), codes=codes)
        assert (np.linalg.det(nifti_affine(mirrored)) < 0) == mirrored
        result = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251 * np.iinfo(dtype).max // 251).astype(dtype)
        write_volume(result, path, tmp_path / "out.nii.gz")
        source, written = nib.load(path), nib.load(tmp_path / "out.nii.gz")
        assert np.array_equal(written.affine, source.affine)
        assert written.header.get_zooms() == source.header.get_zooms()
        assert written.header.get_xyzt_units() == ("mm", "sec")
        for coded in ("get_qform", "get_sform"):
            (matrix, code), (wanted, wanted_code) = (getattr(one, coded)(coded=True) for one in (written, source))
            assert code == wanted_code
            assert np.array_equal(matrix, wanted) if wanted_code else matrix is wanted is None
        assert written.get_data_dtype() == dtype
        assert np.array_equal(written.dataobj.get_unscaled(), result.T)
        assert np.array_equal(np.asarray(written.dataobj), result.T)
        assert written.header["cal_max"] == 0

    def test_equal_results_are_equal_files(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine())
        for name in ("b.nii.gz", "c.nii.gz"):
            write_volume(np.ones(SHAPE, np.uint8), path, tmp_path / name)
        content = (tmp_path / "b.nii.gz").read_bytes()
        assert content == (tmp_path / "c.nii.gz").read_bytes()
        assert content[4:8] == bytes(4)  # gzip's time

    def test_damaged_source_of_a_result(self, tmp_path):
        with pytest.raises(DataError, match=r"not found.*gone\.nii"):
            write_volume(np.ones(SHAPE, np.uint8), tmp_path / "gone.nii", tmp_path / "b.nii.gz")


class TestItkFormats:
    def test_values_and_geometry_of_the_result_as_itk_reads_them(self, itk_source, tmp_path):
        expected, image = read_itk(itk_source)
        volume = read_volume(itk_source)
        assert volume.dtype == np.float32
        assert np.array_equal(volume, expected.reshape(volume.shape))
        mask = (volume > volume.mean()).astype(np.uint8)
        write_volume(mask, itk_source, tmp_path / "out.nii.gz")
        found, written = read_itk(tmp_path / "out.nii.gz")
        assert np.array_equal(found, mask.reshape(expected.shape))
        assert np.allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-5, atol=0)
        assert np.allclose(written.GetOrigin(), image.GetOrigin(), rtol=1e-5, atol=1e-5)
        assert np.allclose(np.asarray(written.GetDirection()), np.asarray(image.GetDirection()), atol=1e-5)
        assert np.array_equal(read_volume(tmp_path / "out.nii.gz"), mask)

    def test_compressed_nrrd_of_16_bit(self, tmp_path):
        itk.imwrite(itk_image(marked(), rotation()), str(tmp_path / "a.nrrd"), compression=True)
        assert np.array_equal(read_volume(tmp_path / "a.nrrd"), marked())
        write_volume(marked().astype(np.uint16), tmp_path / "a.nrrd", tmp_path / "b.nii.gz")
        assert np.array_equal(read_itk(tmp_path / "b.nii.gz")[0], marked())

    def test_fourth_axis_of_length_one(self, tmp_path):
        itk.imwrite(itk.image_from_array(marked().astype(np.float32)[None]), str(tmp_path / "a.nrrd"))
        assert np.array_equal(read_volume(tmp_path / "a.nrrd"), marked())
        write_volume(np.ones(SHAPE, np.uint8), tmp_path / "a.nrrd", tmp_path / "b.nii.gz")
        assert read_itk(tmp_path / "b.nii.gz")[0].shape == SHAPE


class TestDicom:
    def test_series_is_ordered_by_position_and_each_slice_rescaled_by_its_own_slope(self, tmp_path):
        slopes = np.array([1, 1, 1, 2.25, 1])
        folder = write_series(tmp_path / "series", marked(), slopes)
        assert np.array_equal(read_volume(folder), marked() * slopes[:, None, None] + INTERCEPT)
        assert volume_shape(folder) == SHAPE

    def test_result_lies_where_the_files_say(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        write_volume((marked() == 9000).astype(np.uint8), folder, tmp_path / "out.nii.gz")
        written = nib.load(tmp_path / "out.nii.gz")
        (index,) = np.argwhere(np.asarray(written.dataobj))
        found = (written.affine @ [*index, 1])[:3]
        assert np.allclose(found * [-1, -1, 1], position(MARKER, rotation()), atol=1e-4)
        assert written.header.get_xyzt_units()[0] == "mm"
        assert (written.get_qform(coded=True)[1], written.get_sform(coded=True)[1]) == (1, 1)

    def test_one_file_without_suffix_and_one_of_a_series(self, tmp_path):
        for name in ("image", "image.dcm", "IMAGE.DCM"):
            (tmp_path / name).write_bytes(dicom(marked()[1], ORIGIN))
            assert is_volume(tmp_path / name)
            assert np.array_equal(read_volume(tmp_path / name), marked()[1:2] * SLOPE + INTERCEPT)
        folder = write_series(tmp_path / "series", marked()[:1])
        assert np.array_equal(read_volume(folder), marked()[:1] * SLOPE + INTERCEPT)

    def test_frames_of_one_file(self, tmp_path):
        frames = marked()
        content = dicom(frames, ORIGIN, t00280008=("IS", len(frames)))
        (tmp_path / "a.dcm").write_bytes(content)
        assert volume_shape(tmp_path / "a.dcm") == SHAPE
        assert np.array_equal(read_volume(tmp_path / "a.dcm"), frames * SLOPE + INTERCEPT)

    def test_other_files_beside_a_series(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        (folder / "notes.txt").write_text("read me")
        (folder / ".hidden").write_bytes(b"")
        (folder / "._IM0.dcm").write_bytes(b"\0\5\x16\7" * 50)  # as macOS leaves on foreign disks
        (folder / "DICOMDIR").write_bytes((folder / "IM0").read_bytes()[:400])
        assert volume_shape(folder) == SHAPE

    def test_several_series_are_named(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        write_series(folder, marked()[:2], uid="9.8.7")
        with pytest.raises(DataError, match=r"(?s)several DICOM series.*1\.2\.3\.4.*5 files.*9\.8\.7.*2 files"):
            volume_shape(folder)

    @pytest.mark.parametrize("kept", [0, 100, 300, -20])
    def test_damaged_file_of_a_series_is_named(self, tmp_path, kept):
        folder = write_series(tmp_path / "series", marked())
        last = (folder / "IM0").rename(folder / "IM0.dcm")
        last.write_bytes(last.read_bytes()[:kept])
        with pytest.raises(DataError, match=r"(?s)no whole DICOM series.*IM0\.dcm"):
            read_slice(folder, 0, 0)

    def test_empty_file_of_a_series_is_named(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        (folder / "IM1").write_bytes(b"")
        with pytest.raises(DataError, match=r"(?s)no whole DICOM series.*IM1"):
            read_volume(folder)

    @pytest.mark.parametrize("rows", [SHAPE[1] * 10, 65535])
    def test_header_that_announces_more_rows_than_there_are(self, tmp_path, rows):
        content = dicom(marked()[0], position((0, 0, 0), rotation()))
        announced = element(0x00280010, "US", SHAPE[1])
        path = tmp_path / "a.dcm"
        path.write_bytes(content.replace(announced, element(0x00280010, "US", rows)))
        with pytest.raises(DataError, match=r"shorter than its pixels: .*a\.dcm"):
            read_volume(path)  # GDCM itself gives zeros

    def test_missing_slice(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        (folder / "IM3").rename(tmp_path / "IM3")
        (folder / "IM0").unlink()
        assert read_volume(tmp_path / "IM3")[0, 0, 0] == marked()[0, 0, 0] * SLOPE + INTERCEPT
        (tmp_path / "IM3").rename(folder / "IM3")
        with pytest.raises(DataError, match="not evenly spaced"):
            read_volume(folder)

    def test_two_time_points(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        for file in list(folder.iterdir()):
            file.rename(folder / f"first-{file.name}")
        write_series(folder, marked(1))
        with pytest.raises(DataError, match="not evenly spaced"):
            read_volume(folder)

    def test_rounded_positions_are_even(self, tmp_path):
        folder = tmp_path / "series"
        folder.mkdir()
        for index, plane in enumerate(marked()):
            place = np.round(position((index, 0, 0), rotation()), 1)
            (folder / str(index)).write_bytes(dicom(plane, place, number=index))
        assert np.array_equal(read_volume(folder), marked() * SLOPE + INTERCEPT)

    def test_colour(self, tmp_path):
        colour = {
            "t00280002": ("US", 3),
            "t00280004": ("CS", "RGB"),
            "t00280006": ("US", 0),
            "t00280100": ("US", 8),
            "t00280101": ("US", 8),
            "t00280102": ("US", 7),
            "t00280103": ("US", 0),
            "t7FE00010": ("OW", bytes(3 * 6 * 8)),
        }
        (tmp_path / "a.dcm").write_bytes(dicom(marked()[0], ORIGIN, **colour))
        with pytest.raises(DataError, match=r"(?s)not grey.*a\.dcm.*3 values"):
            read_volume(tmp_path / "a.dcm")

    def test_folder_without_images(self, tmp_path):
        folder = tmp_path / "pictures"
        folder.mkdir()
        with pytest.raises(DataError, match="no DICOM series in the folder"):
            read_volume(folder)


class TestTiffPages:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
    def test_values(self, tmp_path, dtype):
        pages = (marked() % 251).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
        assert np.array_equal(read_volume(tmp_path / "a.tif"), pages)
        assert volume_shape(tmp_path / "a.tif") == SHAPE
        assert default_axis(tmp_path / "a.tif") == 0

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_result_is_deflated_pages(self, tmp_path, dtype):
        tifffile.imwrite(tmp_path / "a.tiff", marked().astype(np.uint16), photometric="minisblack")
        result = (marked() * 7 % 251).astype(dtype)
        write_volume(result, tmp_path / "a.tiff", tmp_path / "out.tif")
        with tifffile.TiffFile(tmp_path / "out.tif") as written:
            assert len(written.pages) == len(result)
            assert all(page.compression.name == "ADOBE_DEFLATE" for page in written.pages)
            assert np.array_equal(np.stack([page.asarray() for page in written.pages]), result)
            assert written.pages[0].dtype == dtype

    def test_two_valued_and_palette_pages_give_their_indices(self, tmp_path):
        mask = marked() > 500
        pages = [Image.fromarray(page) for page in mask]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
        assert np.array_equal(read_volume(tmp_path / "a.tif"), mask)
        pages = [Image.fromarray((page % 7).astype(np.uint8)) for page in marked()]
        for page in pages:
            page.putpalette(range(255, 255 - 21, -1))
        pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
        assert Image.open(tmp_path / "b.tif").mode == "P"
        assert np.array_equal(read_volume(tmp_path / "b.tif"), marked() % 7)

    def test_overviews_and_transparency_are_no_pages(self, tmp_path):
        page = marked()[0].astype(np.uint8)
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(page, photometric="minisblack")
            file.write(page[::2, ::2], photometric="minisblack", subfiletype=1)
            file.write(page > 3, photometric="minisblack", subfiletype=4)
        assert not is_volume(tmp_path / "a.tif")
        assert np.array_equal(read_volume(tmp_path / "a.tif"), page[None])

    def test_pages_of_several_sizes(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(np.zeros((6, 8), np.uint8), photometric="minisblack")
            file.write(np.zeros((3, 4), np.uint8), photometric="minisblack")
        with pytest.raises(DataError, match=r"(?s)differ in size.*a\.tif.*6 x 8.*3 x 4 in page 2"):
            volume_shape(tmp_path / "a.tif")

    def test_colour_pages(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 6, 8, 3), np.uint8), photometric="rgb")
        with pytest.raises(DataError, match=r"(?s)not grey.*a\.tif.*RGB"):
            read_volume(tmp_path / "a.tif")

    @pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate"])
    def test_truncated_anywhere(self, tmp_path, compression):
        noise = np.random.default_rng(0).integers(0, 256, (4, 30, 40), dtype=np.uint8)
        pages = [Image.fromarray(page) for page in noise]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
        content = (tmp_path / "a.tif").read_bytes()
        for kept in range(16, len(content) - 60, 37):
            (tmp_path / "b.tif").write_bytes(content[:kept])
            with pytest.raises(DataError, match=r"b\.tif"):
                read_volume(tmp_path / "b.tif")

    def test_broken_second_page_is_not_taken_for_a_picture(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 30, 40), np.uint8), photometric="minisblack")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            second = file.pages[1].offset
        content = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(content[: second + 1] + bytes(len(content) - second - 1))
        assert is_volume(tmp_path / "a.tif")
        with pytest.raises(DataError, match=r"damaged.*a\.tif"):
            read_volume(tmp_path / "a.tif")


class TestWhatIsAVolume:
    @pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif", "a.TIFF", "a.jpg"])
    def test_pictures_are_none(self, write_image, name):
        path = write_image(name, np.zeros((6, 8), np.uint8))
        assert not is_volume(path)
        if "tif" not in name.lower():
            with pytest.raises(DataError, match="not a volume"):
                read_volume(path)

    def test_animated_gif_is_none(self, tmp_path):
        frames = [Image.fromarray(np.full((6, 8), grey, np.uint8)) for grey in (0, 100, 200)]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert not is_volume(tmp_path / "a.gif")

    def test_names_that_suffice(self):
        names = ("a.nii", "a.NII.gz", "a.nrrd", "a.mha", "a.dcm", "a.b.nii.gz")
        assert all(is_volume(name) for name in names)
        assert not any(is_volume(name) for name in ("a", "nii", "a.gz", "a.tif", "missing.png"))

    def test_tiff_of_several_pages(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.TIF", np.zeros((2, 6, 8), np.uint8), photometric="minisblack")
        assert is_volume(tmp_path / "a.TIF")

    def test_file_that_is_no_tiff(self, tmp_path):
        (tmp_path / "a.tif").write_bytes(b"garbage" * 50)
        assert not is_volume(tmp_path / "a.tif")

    def test_folders(self, tmp_path, write_image):
        write_series(tmp_path / "series", marked())
        write_image("pictures/a.png", np.zeros((6, 8), np.uint8))
        (tmp_path / "pictures" / "DICOMDIR").write_bytes(dicom(marked()[0], ORIGIN))
        (tmp_path / "pictures" / "series.dcm").mkdir()
        assert is_volume(tmp_path / "series")
        assert not is_volume(tmp_path / "pictures")
        assert not is_volume(tmp_path)


class TestSlices:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_slices_are_those_of_the_array(self, tmp_path, axis):
        path = write_nifti(tmp_path / "a.nii.gz", marked(), nifti_affine())
        values = marked() * SLOPE + INTERCEPT
        assert slice_count(path, axis) == SHAPE[axis]
        for index in range(SHAPE[axis]):
            expected = values[tuple(index if other == axis else slice(None) for other in range(3))]
            plane = read_slice(path, axis, index)
            assert plane.dtype == np.float32
            assert np.array_equal(plane, expected)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("source", ["nifti", "mirrored", *ITK_SOURCES, "tiff"])
    def test_marker_stays_in_place_through_slices(self, tmp_path, axis, source):
        """Slices are thresholded one by one, put together and written; others read the result."""
        if source in ITK_SOURCES:
            path = ITK_SOURCES[source](tmp_path)
        elif source == "tiff":
            path = tmp_path / "a.tif"
            tifffile.imwrite(path, marked(), photometric="minisblack")
        else:
            path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine(source == "mirrored"))
        brightest = read_volume(path).max()
        planes = [read_slice(path, axis, index) == brightest for index in range(slice_count(path, axis))]
        result = tmp_path / volume_output_name(path, "result")
        write_volume(np.stack(planes, axis).astype(np.uint8), path, result)
        if source == "tiff":
            assert np.argwhere(tifffile.imread(result)).tolist() == [list(MARKER)]
        elif source in ITK_SOURCES:
            found = [
                image.TransformIndexToPhysicalPoint([int(place) for place in np.argwhere(mask)[0][::-1]])
                for mask, image in (self._marked_by_itk(path), self._marked_by_itk(result))
            ]
            assert np.allclose(found[0], found[1], atol=1e-4)
        else:
            written = nib.load(result)
            (index,) = np.argwhere(np.asarray(written.dataobj))
            expected = nifti_affine(source == "mirrored") @ [*MARKER[::-1], 1]
            assert np.allclose(written.affine @ [*index, 1], expected, atol=1e-4)

    @staticmethod
    def _marked_by_itk(path):
        values, image = read_itk(path)
        assert (values == values.max()).sum() == 1
        return values == values.max(), image

    def test_default_axis_is_the_coarsest(self, tmp_path):
        turned = np.diag([0, 0, 0, 1.0])
        for spacing, axis in [((0.5, 0.5, 3), 0), ((0.5, 3, 0.5), 1), ((3, 0.5, 0.5), 2), ((1, 1, 1), 0)]:
            turned[:3, :3] = rotation() * spacing
            assert default_axis(write_nifti(tmp_path / "a.nii", marked(), turned)) == axis, spacing
        turned[:3, :3] = np.diag([0.70001, 0.70002, 0.7])
        assert default_axis(write_nifti(tmp_path / "b.nii", marked(), turned)) == 0
        assert default_axis(write_nifti(tmp_path / "c.nii", marked()[:, :1], nifti_affine())) == 1

    def test_default_axis_of_dicom_and_nrrd(self, tmp_path):
        assert default_axis(write_series(tmp_path / "series", marked())) == 0
        itk_axis = itk_image(marked(), rotation())
        itk_axis.SetSpacing([4.0, 1.0, 2.0])
        sys.modules["itk"].imwrite(itk_axis, str(tmp_path / "a.nrrd"))
        assert default_axis(tmp_path / "a.nrrd") == 2

    def test_no_such_slice_or_axis(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine())
        for index in (-1, SHAPE[1]):
            with pytest.raises(DataError, match=r"(?s)no such slice.*a\.nii.*0 to 5"):
                read_slice(path, 1, index)
        for axis in (-1, 3):
            with pytest.raises(ConfigError, match="no such axis"):
                read_slice(path, axis, 0)


class TestCache:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """Paths in order of being decoded."""
        paths = []
        original = volumes.read_volume
        monkeypatch.setattr(volumes, "read_volume", lambda path: (paths.append(path.name), original(path))[1])
        return paths

    def test_image_and_labels_in_turn_are_decoded_once(self, tmp_path, decoded):
        image = write_nifti(tmp_path / "image.nii.gz", marked(), nifti_affine())
        labels = write_nifti(tmp_path / "labels.nii.gz", marked(1), nifti_affine(), scaled=False)
        for index in range(SHAPE[0]):
            assert np.array_equal(read_slice(image, 0, index), marked()[index] * SLOPE + INTERCEPT)
            assert np.array_equal(read_slice(labels, 0, index), marked(1)[index])
        assert decoded == ["image.nii.gz", "labels.nii.gz"]

    def test_changed_file_of_the_same_size_is_read_again(self, tmp_path, decoded):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine(), scaled=False)
        os.utime(path, ns=(10**18, 10**18))
        assert np.array_equal(read_slice(path, 0, 2), marked()[2])
        size = path.stat().st_size
        write_nifti(path, marked(1), nifti_affine(), scaled=False)
        os.utime(path, ns=(10**18, 10**18 + 1000))
        assert path.stat().st_size == size
        assert np.array_equal(read_slice(path, 0, 2), marked(1)[2])
        assert decoded == ["a.nii", "a.nii"]

    def test_changed_shape(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine())
        os.utime(path, ns=(10**18, 10**18))
        assert slice_count(path, 0) == 5
        write_nifti(path, marked()[:3], nifti_affine())
        os.utime(path, ns=(10**18, 10**18))
        assert slice_count(path, 0) == 3

    def test_changed_file_of_a_series(self, tmp_path):
        folder = write_series(tmp_path / "series", marked())
        assert np.array_equal(read_slice(folder, 0, 2), marked()[2] * SLOPE + INTERCEPT)
        write_series(folder, marked(1))
        for file in folder.iterdir():
            os.utime(file, ns=(10**18, 10**18))
        assert np.array_equal(read_slice(folder, 0, 2), marked(1)[2] * SLOPE + INTERCEPT)

    def test_slices_are_copies(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine(), scaled=False)
        read_slice(path, 0, 1)[:] = -1
        assert np.array_equal(read_slice(path, 0, 1), marked()[1])


class TestRefused:
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.dcm", "a.tif"])
    def test_missing_empty_or_garbage(self, tmp_path, name):
        path = tmp_path / name
        with pytest.raises(DataError, match=f"not found.*{name}"):
            read_volume(path)
        path.write_bytes(b"")
        with pytest.raises(DataError, match=f"empty.*{name}"):
            slice_count(path, 0)
        path.write_bytes(b"garbage" * 50)
        with pytest.raises(DataError, match=name):
            volume_shape(path)
        with pytest.raises(DataError, match=name):
            read_slice(path, 0, 0)

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.dcm"])
    @pytest.mark.parametrize("kept", [0.05, 0.3, 0.6, 0.95])
    def test_truncated(self, tmp_path, name, kept):
        path = tmp_path / name
        if "nii" in name:
            write_nifti(path, marked(), nifti_affine())
        elif name == "a.dcm":
            path.write_bytes(dicom(marked()[0], ORIGIN))
        else:
            write_itk(path, marked(), rotation())
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(DataError, match=name):
            read_volume(path)

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
    def test_no_flipped_bit_of_a_compressed_volume_goes_unnoticed(self, tmp_path, name):
        values = (np.arange(20) * 3 + np.random.default_rng(0).integers(0, 40, (12, 24, 20))).astype(np.int16)
        path = tmp_path / name
        if name == "a.nii.gz":
            nib.save(nib.Nifti1Image(values.T, np.eye(4)), path)
        else:
            itk.imwrite(itk.image_from_array(values), str(path), compression=True)
        sound = path.read_bytes()
        start = max(sound.find(b"\n\n"), sound.find(b"LOCAL\n"), 0)  # behind the text, which has no checksum
        np.testing.assert_array_equal(read_volume(path), values)
        draw = np.random.default_rng(1)
        noticed = 0
        for _ in range(60):
            damaged = bytearray(sound)
            damaged[draw.integers(start + 8, len(sound))] ^= 1 << draw.integers(8)
            path.write_bytes(damaged)
            try:
                np.testing.assert_array_equal(read_volume(path), values)
            except DataError as error:
                assert name in str(error)
                noticed += 1
        assert noticed >= 55

    def test_members_and_padding_of_gzip(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine())
        content, packed = path.read_bytes(), tmp_path / "b.nii.gz"
        packed.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(100))
        np.testing.assert_array_equal(read_volume(packed), read_volume(path))
        packed.write_bytes(gzip.compress(content) + b"something else")
        with pytest.raises(DataError, match=r"damaged.*b\.nii\.gz"):
            read_volume(packed)

    @pytest.mark.parametrize("field", ["srow_x", "pixdim"])
    def test_place_that_is_no_number(self, tmp_path, field):
        image = nib.Nifti1Image(marked().T, nifti_affine())
        image.header["sform_code"], image.header["qform_code"] = field == "srow_x", 0
        image.header[field][1] = np.nan
        content = image.header.binaryblock + bytes(4) + marked().tobytes()
        (tmp_path / "a.nii").write_bytes(content)
        with pytest.raises(DataError, match=r"no number: .*a\.nii"):
            volume_shape(tmp_path / "a.nii")

    def test_nonsense_size_in_a_header(self, tmp_path):
        path = write_nifti(tmp_path / "a.nii", marked(), nifti_affine())
        content = bytearray(path.read_bytes())
        content[40:48] = struct.pack("<4h", 3, 32767, 32767, 32767)
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.nii"):
            read_volume(path)
        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=r"a\.nii\.gz"):
            read_volume(path)

    @pytest.mark.parametrize("stored", [(4, 3, 2, 5), (4, 3, 1, 2), (4, 3, 2, 1, 3), (4,)])
    def test_nifti_of_other_axes(self, tmp_path, stored):
        nib.save(nib.Nifti1Image(np.zeros(stored, np.float32), np.eye(4)), tmp_path / "a.nii.gz")
        found = " x ".join(str(length) for length in stored)
        with pytest.raises(DataError, match=rf"(?s)three axes.*a\.nii\.gz.*{found}"):
            volume_shape(tmp_path / "a.nii.gz")

    def test_nifti_in_colour_or_complex(self, tmp_path):
        colour = np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        for values in (colour, np.zeros((4, 3, 2), np.complex64)):
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
            with pytest.raises(DataError, match=r"not grey.*a\.nii"):
                read_volume(tmp_path / "a.nii")

    @pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
    def test_itk_formats_of_other_axes_or_in_colour(self, tmp_path, name):
        itk.imwrite(itk.image_from_array(np.zeros((2, 4, 5, 6), np.float32)), str(tmp_path / name))
        with pytest.raises(DataError, match=f"(?s)three axes.*{name}.*6 x 5 x 4 x 2"):
            read_volume(tmp_path / name)
        itk.imwrite(itk.image_from_array(np.zeros((4, 5, 6, 3), np.float32), is_vector=True), str(tmp_path / name))
        with pytest.raises(DataError, match=f"(?s)not grey.*{name}.*3 values"):
            read_volume(tmp_path / name)


class TestWriting:
    @pytest.fixture(params=["a.nii", "a.tif"])
    def source(self, request, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        if request.param == "a.tif":
            tifffile.imwrite(folder / "a.tif", marked(), photometric="minisblack")
        else:
            write_nifti(folder / request.param, marked(), nifti_affine())
        return folder / request.param

    def test_output_name(self, source):
        ending = ".tif" if source.suffix == ".tif" else ".nii.gz"
        assert volume_output_name(source, "a.b_mask") == f"a.b_mask{ending}"

    def test_failed_write_leaves_the_old_file_and_nothing_else(self, source, tmp_path, monkeypatch):
        path = tmp_path / volume_output_name(source, "result")
        write_volume(np.ones(SHAPE, np.uint8), source, path)
        before = path.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(OutputError, match=f"(?s)cannot write.*{path.name}.*No space left"):
            write_volume(np.zeros(SHAPE, np.uint8), source, path)
        assert path.read_bytes() == before
        assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["in", path.name])

    def test_missing_folder(self, source, tmp_path):
        path = tmp_path / "gone" / volume_output_name(source, "result")
        with pytest.raises(OutputError, match=r"(?s)cannot write.*gone"):
            write_volume(np.ones(SHAPE, np.uint8), source, path)
        (tmp_path / "gone").write_bytes(b"a file")
        with pytest.raises(OutputError, match=r"(?s)cannot write.*gone"):
            write_volume(np.ones(SHAPE, np.uint8), source, path)

    def test_other_shape_or_ending(self, source, tmp_path):
        path = tmp_path / volume_output_name(source, "result")
        with pytest.raises(OutputError, match=r"(?s)another shape.*\(5, 6, 8\).*\(8, 6, 5\)"):
            write_volume(np.ones(SHAPE[::-1], np.uint8), source, path)
        with pytest.raises(OutputError, match="another ending"):
            write_volume(np.ones(SHAPE, np.uint8), source, path.with_name("result.png"))
        assert not list(tmp_path.glob("result*"))
