"""Volumes of every format, written for tests, and ITK's view of what was written."""

import struct

import itk
import nibabel as nib
import numpy as np

SHAPE = (5, 6, 8)
"""Slices, rows, columns."""
MARKER = (1, 4, 2)
"""Index of the one bright voxel; no symmetry of the volume maps it to itself."""
SPACING = (2.5, 0.7, 0.9)
ORIGIN = np.array([-12.5, 33.25, -101.0])
SLOPE, INTERCEPT = 0.5, -1024.0


def marked(seed: int = 0) -> np.ndarray:
    """Dark noise and the marker, as stored integers."""
    values = np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)
    values[MARKER] = 9000
    return values


def rotation() -> np.ndarray:
    """Columns: unit vectors along columns' index, rows' index and slices."""
    a, b, c = 0.3, -0.2, 0.5
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_y = np.array([[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]])
    return about_z @ about_x @ about_y


def position(index: tuple[int, int, int], direction: np.ndarray) -> np.ndarray:
    """Place in the coordinates of the file, mm, of a (slice, row, column) index."""
    return ORIGIN + direction @ (np.array(index[::-1]) * SPACING[::-1])


# NIfTI


def nifti_affine(mirrored: bool = False) -> np.ndarray:
    direction = rotation() * ([-1, 1, 1] if mirrored else [1, 1, 1])
    return np.block([[direction * SPACING[::-1], ORIGIN[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def write_nifti(path, values, affine, image_type=nib.Nifti1Image, scaled=True, codes=("scanner", "aligned")):
    image = image_type(values.T, affine)
    image.set_data_dtype(np.int16)
    if scaled:  # of the header alone: nibabel then takes the values for stored ones
        image.header.set_slope_inter(SLOPE, INTERCEPT)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 500
    image.header["descrip"] = b"a scan"
    nib.save(image, path)
    return path


# DICOM, written here byte by byte, so that ITK does not check itself


def element(tag, vr, value):
    if vr == "US":
        data = struct.pack("<H", value)
    elif isinstance(value, bytes):
        data = value
    elif isinstance(value, (list, np.ndarray)):
        data = "\\".join(f"{number:.12g}" for number in value).encode()
    else:
        data = str(value).encode()
    data += (b"\0" if vr in ("UI", "OB", "OW") else b" ") * (len(data) % 2)
    size = struct.pack("<HI", 0, len(data)) if vr in ("OB", "OW") else struct.pack("<H", len(data))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + size + data


def dicom(plane, place, uid="1.2.3.4", number=1, slope=SLOPE, intercept=INTERCEPT, date="20200102", **extra):
    """A CT image with explicit little-endian values; ``extra`` is ``t00280008=("IS", 3)`` and the like."""
    ct = "1.2.840.10008.5.1.4.1.1.2"
    meta = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", ct)
    meta += element(0x00020003, "UI", f"{uid}.{number}") + element(0x00020010, "UI", "1.2.840.10008.1.2.1")
    elements = {
        0x00080016: ("UI", ct),
        0x00080018: ("UI", f"{uid}.{number}"),
        0x00080021: ("DA", date),
        0x00080060: ("CS", "CT"),
        0x0020000D: ("UI", "1.2.3"),
        0x0020000E: ("UI", uid),
        0x00200011: ("IS", 1),
        0x00200013: ("IS", number),
        0x00200032: ("DS", place),
        0x00200037: ("DS", rotation()[:, :2].T.ravel()),
        0x00280002: ("US", 1),
        0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", plane.shape[-2]),
        0x00280011: ("US", plane.shape[-1]),
        0x00280030: ("DS", list(SPACING[1:])),
        0x00280100: ("US", 16),
        0x00280101: ("US", 16),
        0x00280102: ("US", 15),
        0x00280103: ("US", 1),
        0x00281052: ("DS", [intercept]),
        0x00281053: ("DS", [slope]),
        0x7FE00010: ("OW", plane.astype("<i2").tobytes()),
    }
    elements.update({int(tag[1:], 16): value for tag, value in extra.items()})
    body = b"".join(element(tag, *elements[tag]) for tag in sorted(elements))
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + body


def write_series(folder, values, slopes=None, **settings):
    """One file a slice, whose names and numbers are out of the order of position."""
    folder.mkdir(exist_ok=True)
    for index, plane in enumerate(values):
        shuffled = (index * 7 + 3) % len(values)
        place = position((index, 0, 0), rotation())
        slope = slopes[index] if slopes is not None else SLOPE
        content = dicom(plane, place, number=len(values) - shuffled, slope=slope, **settings)
        (folder / f"{settings.get('uid', 'IM')}{shuffled}").write_bytes(content)
    return folder


def itk_image(values, direction):
    image = itk.image_from_array(values)
    axes = values.ndim
    image.SetSpacing(list(SPACING[::-1][:axes]))
    image.SetOrigin(list(ORIGIN[:axes]))
    image.SetDirection(itk.matrix_from_array(direction[:axes, :axes]))
    return image


def write_itk(path, values, direction):
    itk.imwrite(itk_image(values, direction), str(path))
    return path


def read_itk(path):
    """Values and geometry as ITK sees them."""
    if path.is_dir():
        names = itk.GDCMSeriesFileNames.New(Directory=str(path))
        image = itk.imread(list(names.GetInputFileNames()), pixel_type=itk.F)
    else:
        image = itk.imread(str(path), pixel_type=itk.F)
    return itk.array_from_image(image), image
