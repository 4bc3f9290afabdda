"""Broken pictures, masks, rasters and volumes, each as one pair of a folder that is otherwise sound."""

import gzip
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.corpus.cases import Case, Must, Write, cut, flipped, garbled, patched, replaced, sparse, written

SIZE = (24, 20)
RANGE = 1000.0
"""What measurements are scaled by in the ways, so that right values lie in [0, 1]."""

_random = np.random.default_rng(7)
PHOTO = _random.integers(60, 200, (*SIZE, 3), dtype=np.uint8)
GREY = PHOTO[..., 0]
MASK = np.zeros(SIZE, np.uint8)
MASK[4:7, 3:17] = MASK[4:20, 9:11] = 1
VOXELS = _random.integers(0, 1000, (3, *SIZE)).astype(np.int16)
VOXEL_MASK = np.stack([MASK, np.roll(MASK, 2, axis=0), MASK])
FLOATS = _random.uniform(0, 1000, SIZE).astype(np.float32)

_IMAGE_WAYS = ("data_verify", "training_start", "inference_start")
_MASK_WAYS = ("data_verify", "training_start")
_VERIFIED = ("data_verify",)  # what is blank spoils no training, and is told by the command that looks for it


# ---- writers of sound files


def picture(array: np.ndarray, image_format: str | None = None, **options) -> Write:
    return lambda path: Image.fromarray(array).save(path, format=image_format, **options)


def gzipped(write: Write, suffix: str) -> Write:
    def packed(path: Path) -> None:
        inner = path.with_name(f"inner{suffix}")
        write(inner)
        path.write_bytes(gzip.compress(inner.read_bytes(), mtime=0))
        inner.unlink()

    return packed


def nifti(array: np.ndarray, affine: np.ndarray | None = None) -> Write:
    def write(path: Path) -> None:
        import nibabel as nib

        nib.save(nib.Nifti1Image(array.T, np.diag([1.0, 1.0, 3.0, 1.0]) if affine is None else affine), path)

    return write


def itk_volume(array: np.ndarray, compressed: bool = False) -> Write:
    def write(path: Path) -> None:
        import itk

        image = itk.image_from_array(array)
        image.SetSpacing([1.0, 1.0, 3.0])
        itk.imwrite(image, str(path), compression=compressed)

    return write


def dicom_slice(plane: np.ndarray = VOXELS[0], index: int = 0) -> Write:
    from tests.io.volume_files import dicom

    content = dicom(plane, [0, 0, 3.0 * index], number=index + 1, slope=1.0, intercept=0.0)
    return lambda path: path.write_bytes(content)


def geotiff(array: np.ndarray, **options) -> Write:
    def write(path: Path) -> None:
        import rasterio
        from rasterio.transform import from_origin

        bands = array[None] if array.ndim == 2 else array
        profile = {
            "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2],
            "dtype": bands.dtype, "crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10),
        } | options  # fmt: skip
        with rasterio.open(path, "w", **profile) as file:
            file.write(bands)

    return write


def pages(*arrays: np.ndarray) -> Write:
    def write(path: Path) -> None:
        first, *others = (Image.fromarray(array) for array in arrays)
        first.save(path, save_all=True, append_images=others)

    return write


# ---- crafted byte by byte


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG whose header says what it likes; ``data`` is the content of IDAT."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def deflated_zeros(size: int) -> bytes:
    """So many zeros as a zlib stream, made of one block that is repeated."""
    block_size = 1 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(block_size)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(size % block_size)) + packer.flush()
    return b"\x78\x9c" + block * (size // block_size) + rest + struct.pack(">I", _adler_of_zeros(size))


def _adler_of_zeros(size: int) -> int:
    return (size % 65521) << 16 | 1


def gzip_bomb(size: int) -> bytes:
    """So many zeros as gzip."""
    body = deflated_zeros(size)[2:-4]
    crc, block = 0, bytes(1 << 24)
    for _ in range(size >> 24):
        crc = zlib.crc32(block, crc)
    crc = zlib.crc32(block[: size % (1 << 24)], crc)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<II", crc, size & 0xFFFFFFFF)


def tiff(width: int, height: int, entries: dict[int, tuple[int, int, int]] | None = None, data: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory; entries are (type, count, value) by tag."""
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, len(data)),
    } | (entries or {})  # fmt: skip
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + struct.pack("<I", 0)


def _tiff_loop(path: Path) -> None:
    """Two pages that point at one another."""
    pages(GREY, GREY)(path)
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    second = struct.unpack_from("<I", content, first + 2 + 12 * struct.unpack_from("<H", content, first)[0])[0]
    at = second + 2 + 12 * struct.unpack_from("<H", content, second)[0]
    struct.pack_into("<I", content, at, first)
    path.write_bytes(content)


def _nifti_header(**fields) -> Write:
    """A header with some fields set and no data behind it."""

    def write(path: Path) -> None:
        import nibabel as nib

        header = nib.Nifti1Header()
        header.set_data_shape((*SIZE[::-1], 3))
        header.set_data_dtype(np.int16)
        header["magic"] = b"n+1"
        header["vox_offset"] = 352
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(header.binaryblock + bytes(4) + VOXELS.tobytes())

    return write


def _nrrd(**fields: str) -> Write:
    said = {"type": "short", "dimension": "3", "sizes": "20 24 3", "encoding": "raw", "endian": "little"} | fields

    def write(path: Path) -> None:
        lines = [f"{name.replace('_', ' ')}: {value}" for name, value in said.items() if value]
        path.write_bytes(("NRRD0004\n" + "\n".join(lines) + "\n\n").encode() + VOXELS.astype("<i2").tobytes())

    return write


def _mha(**fields: str) -> Write:
    said = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "ElementSpacing": "1 1 3", "DimSize": "20 24 3", "ElementType": "MET_SHORT",
    } | fields | {"ElementDataFile": fields.get("ElementDataFile", "LOCAL")}  # fmt: skip

    def write(path: Path) -> None:
        header = "".join(f"{name} = {value}\n" for name, value in said.items()).encode()
        path.write_bytes(header + VOXELS.astype("<i2").tobytes())

    return write


# ---- what is no file


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside.txt").write_text("text")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # names of sockets are short


def _link(target: str) -> Write:
    return lambda path: path.symlink_to(target)


# ---- data sets around one broken file


def pair_folder(folder: Path, images: dict[str, Write], masks: dict[str, Write]) -> None:
    """A folder with splits: one sound pair in each, and what is given in the training split."""
    for number, split in enumerate(("training", "validation", "test")):
        for part in ("images", "masks"):
            (folder / split / part).mkdir(parents=True)
        picture(np.roll(PHOTO, number + 1, axis=0))(folder / split / "images" / "sound.png")
        picture(MASK * 255)(folder / split / "masks" / "sound.png")
    for part, files in (("images", images), ("masks", masks)):
        for name, write in files.items():
            write(folder / "training" / part / name)


def as_items(array: np.ndarray) -> np.ndarray:
    """Right values as the ways give them: (items, channels, H, W)."""
    return array[None, None] if array.ndim == 2 else array


RIGHT_PHOTO = (PHOTO.transpose(2, 0, 1) / 255)[None]
RIGHT_GREY = as_items(GREY / 255)
RIGHT_VOXELS = (VOXELS / RANGE)[:, None]
RIGHT_FLOATS = as_items(FLOATS / RANGE)
RIGHT_MASK = as_items(MASK)
RIGHT_VOXEL_MASK = VOXEL_MASK[:, None]


def image_case(
    name: str,
    suffix: str,
    write: Write,
    must: Must,
    right: np.ndarray | None = None,
    mask: tuple[str, Write] = (".png", picture(MASK * 255)),
    short: bool = False,
    ways: tuple[str, ...] = _IMAGE_WAYS,
) -> Case:
    """A broken image with a sound mask."""

    def make(folder: Path) -> Path:
        pair_folder(folder, {f"broken{suffix}": write}, {f"broken{mask[0]}": mask[1]})
        return folder / "training/images" / f"broken{suffix}"

    return Case(f"image/{name}", make, ways, must, right, short)


def mask_case(
    name: str,
    suffix: str,
    write: Write,
    must: Must,
    right: np.ndarray | None = RIGHT_MASK,
    image: tuple[str, Write] = (".png", picture(PHOTO)),
    short: bool = False,
    ways: tuple[str, ...] = _MASK_WAYS,
) -> Case:
    """A sound image with a broken mask."""

    def make(folder: Path) -> Path:
        pair_folder(folder, {f"broken{image[0]}": image[1]}, {f"broken{suffix}": write})
        return folder / "training/masks" / f"broken{suffix}"

    return Case(f"mask/{name}", make, ways, must, right, short)


VOLUME_OF_MASKS = (".nii.gz", nifti(VOXEL_MASK))
ITK_MASKS = (".nii.gz", nifti(VOXEL_MASK, np.diag([-1.0, -1.0, 3.0, 1.0])))  # ITK's axes point left and back
PAGES_OF_MASKS = (".tif", pages(*VOXEL_MASK))
DICOM_MASK = (".dcm", dicom_slice(VOXEL_MASK[0].astype(np.int16)))
RASTER_OF_MASK = (".tif", geotiff(MASK))
PICTURE_OF_MASK = (".png", picture(MASK * 255))

SOUND_IMAGES: dict[str, tuple[str, Write, np.ndarray | None, bool, tuple[str, Write]]] = {
    # suffix, writer, right values (None: lossy), whether a checksum of the format tells damage, the mask
    "png": (".png", picture(PHOTO), RIGHT_PHOTO, True, PICTURE_OF_MASK),
    "png-16-bit": (".png", picture(GREY.astype(np.uint16) * 257), RIGHT_GREY, True, PICTURE_OF_MASK),
    "jpeg": (".jpg", picture(PHOTO, quality=95), None, False, PICTURE_OF_MASK),
    "gif": (".gif", picture(GREY), RIGHT_GREY, False, PICTURE_OF_MASK),
    "bmp": (".bmp", picture(PHOTO), RIGHT_PHOTO, False, PICTURE_OF_MASK),
    "ppm": (".ppm", picture(PHOTO), RIGHT_PHOTO, False, PICTURE_OF_MASK),
    "tiff": (".tif", picture(PHOTO), RIGHT_PHOTO, False, PICTURE_OF_MASK),
    "tiff-deflate": (".tif", picture(PHOTO, compression="tiff_adobe_deflate"), RIGHT_PHOTO, False, PICTURE_OF_MASK),
    "tiff-lzw": (".tif", picture(PHOTO, compression="tiff_lzw"), RIGHT_PHOTO, False, PICTURE_OF_MASK),
    "tiff-pages": (".tif", pages(*VOXELS.astype(np.uint16)), RIGHT_VOXELS, False, PAGES_OF_MASKS),
    "png.gz": (".png.gz", gzipped(picture(PHOTO), ".png"), RIGHT_PHOTO, True, PICTURE_OF_MASK),
    "ppm.gz": (".ppm.gz", gzipped(picture(PHOTO), ".ppm"), RIGHT_PHOTO, True, PICTURE_OF_MASK),
    "geotiff-float": (".tif", geotiff(FLOATS), RIGHT_FLOATS, False, RASTER_OF_MASK),
    "geotiff-deflate": (".tif", geotiff(FLOATS, compress="deflate"), RIGHT_FLOATS, False, RASTER_OF_MASK),
    "nifti": (".nii", nifti(VOXELS), RIGHT_VOXELS, False, VOLUME_OF_MASKS),
    "nifti-gz": (".nii.gz", nifti(VOXELS), RIGHT_VOXELS, True, VOLUME_OF_MASKS),
    "nrrd": (".nrrd", itk_volume(VOXELS), RIGHT_VOXELS, False, ITK_MASKS),
    "nrrd-gz": (".nrrd", itk_volume(VOXELS, compressed=True), RIGHT_VOXELS, True, ITK_MASKS),
    "metaimage": (".mha", itk_volume(VOXELS), RIGHT_VOXELS, False, ITK_MASKS),
    "metaimage-z": (".mha", itk_volume(VOXELS, compressed=True), RIGHT_VOXELS, True, ITK_MASKS),
    "dicom": (".dcm", dicom_slice(), RIGHT_VOXELS[:1], False, DICOM_MASK),
}
SOUND_MASKS: dict[str, tuple[str, Write, np.ndarray, bool, tuple[str, Write]]] = {
    # as above, with the image
    "png": (".png", picture(MASK * 255), RIGHT_MASK, True, (".png", picture(PHOTO))),
    "png-1-bit": (".png", picture(MASK > 0), RIGHT_MASK, True, (".png", picture(PHOTO))),
    "gif": (".gif", picture(MASK * 255), RIGHT_MASK, False, (".png", picture(PHOTO))),
    "tiff": (".tif", picture(MASK * 255), RIGHT_MASK, False, (".png", picture(PHOTO))),
    "geotiff": (".tif", geotiff(MASK, compress="deflate"), RIGHT_MASK, False, (".tif", geotiff(FLOATS))),
    "nifti-gz": (".nii.gz", nifti(VOXEL_MASK), RIGHT_VOXEL_MASK, True, (".nii.gz", nifti(VOXELS))),
}


def _damaged() -> Iterator[Case]:
    """Every sound file cut, with noise in it, and with single bits turned."""
    for name, (suffix, write, right, checked, mask) in SOUND_IMAGES.items():
        yield image_case(
            f"{name}-whole", suffix, write, "read", right, mask, short=name in ("png", "nifti-gz", "dicom")
        )
        yield image_case(f"{name}-empty", suffix, written(b""), "refuse", None, mask, short=name in ("png", "nifti"))
        for share in (0.1, 0.5, 0.9):
            yield image_case(f"{name}-cut-at-{share}", suffix, cut(write, share), "refuse", None, mask, share == 0.5)
        must: Must = "refuse or read" if checked else "survive"
        yield image_case(f"{name}-noise", suffix, garbled(write, 1), must, right, mask)
        for seed in range(4):
            short = seed == 0 and checked
            yield image_case(f"{name}-bit-{seed}", suffix, flipped(write, seed), must, right, mask, short)
    for name, (suffix, write, right, checked, image) in SOUND_MASKS.items():
        yield mask_case(f"{name}-whole", suffix, write, "read", right, image)
        yield mask_case(f"{name}-cut", suffix, cut(write, 0.6), "refuse", None, image, short=name in ("gif", "geotiff"))
        for seed in range(3):
            must = "refuse or read" if checked else "survive"
            yield mask_case(f"{name}-bit-{seed}", suffix, flipped(write, seed), must, right, image)


def _pretending() -> Iterator[Case]:
    """Other content under the name of an image."""
    page = written(b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20)
    for suffix in (".png", ".jpg", ".tif", ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".png.gz"):
        mask = PICTURE_OF_MASK if "n" not in suffix[1:2] and suffix not in (".mha", ".dcm") else VOLUME_OF_MASKS
        yield image_case(f"page-as{suffix}", suffix, page, "refuse", None, mask, short=suffix == ".nii.gz")
    yield image_case("pickle-as.png", ".png", written(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "refuse")
    yield image_case("svg-as.png", ".png", written(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "refuse")
    yield image_case(
        "postscript-as.png", ".png", written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 24\n"), "refuse"
    )
    yield image_case("png-as.jpg", ".jpg", picture(PHOTO, "PNG"), "refuse or read", RIGHT_PHOTO)
    yield image_case("png-as.tif", ".tif", picture(PHOTO, "PNG"), "refuse or read", RIGHT_PHOTO, short=True)
    yield image_case("png-as.nii", ".nii", picture(PHOTO, "PNG"), "refuse", None, VOLUME_OF_MASKS)
    yield image_case("png-as.png.gz", ".png.gz", picture(PHOTO, "PNG"), "refuse or read", RIGHT_PHOTO)
    plain = gzipped(nifti(VOXELS), ".nii")
    yield image_case("gzip-as.nii", ".nii", plain, "refuse or read", RIGHT_VOXELS, VOLUME_OF_MASKS)
    yield image_case("zip-as.tif", ".tif", written(b"PK\3\4" + bytes(200)), "refuse")
    yield image_case("folder.png", ".png", _folder, "survive")  # which is no image, and holds none


def _no_files() -> Iterator[Case]:
    """What POSIX has under a name besides files."""
    if os.name != "posix":
        return
    for name, write in {"pipe": _fifo, "socket": _socket, "dangling-link": _link("nowhere.png"),
                        "link-to-itself": _link("broken.png"), "link-to-zeros": _link("/dev/zero"),
                        "link-to-nothing": _link("/dev/null")}.items():  # fmt: skip
        yield image_case(f"{name}.png", ".png", write, "refuse", short=name in ("pipe", "dangling-link"))
    yield image_case("pipe.tif", ".tif", _fifo, "refuse")
    yield image_case("pipe.png.gz", ".png.gz", _fifo, "refuse")
    yield image_case("pipe.dcm", ".dcm", _fifo, "refuse", None, VOLUME_OF_MASKS)
    yield image_case("pipe.nii.gz", ".nii.gz", _fifo, "refuse", None, VOLUME_OF_MASKS)
    yield mask_case("pipe.png", ".png", _fifo, "refuse", short=True)
    yield mask_case("link-to-zeros.png", ".png", _link("/dev/zero"), "refuse")


def _png_bomb(path: Path) -> None:
    path.write_bytes(png(60_000, 60_000, deflated_zeros(60_001 * 60_000)))


def _absurd() -> Iterator[Case]:
    """Sizes that nothing holds, and small files that grow."""
    few = zlib.compress(bytes(100))
    yield image_case("png-2-billion-wide", ".png", written(png(2**31 - 1, 2**31 - 1, few)), "refuse", short=True)
    yield image_case("png-200000-square", ".png", written(png(200_000, 200_000, few)), "refuse")
    yield image_case("png-of-no-width", ".png", written(png(0, 24, few)), "refuse", short=True)
    yield image_case("png-60000-square-bomb", ".png", _png_bomb, "refuse")
    text = png_chunk(b"zTXt", b"Comment\0\0" + deflated_zeros(1 << 30))
    small = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    comment = written(png(SIZE[1], SIZE[0], small, extra=text))
    yield image_case("png-text-bomb", ".png", comment, "refuse or read", RIGHT_GREY)
    profile = png_chunk(b"iCCP", b"icc\0\0" + deflated_zeros(1 << 30))
    yield image_case("png-profile-bomb", ".png", written(png(SIZE[1], SIZE[0], small, extra=profile)),
                     "refuse or read", RIGHT_GREY)  # fmt: skip
    yield image_case("gzip-bomb.png.gz", ".png.gz", lambda path: path.write_bytes(gzip_bomb(6 << 30)), "refuse")
    yield image_case("gzip-bomb.nii.gz", ".nii.gz", lambda path: path.write_bytes(gzip_bomb(6 << 30)), "refuse", None,
                     VOLUME_OF_MASKS)  # fmt: skip
    behind = gzipped(nifti(VOXELS), ".nii")

    def padded(path: Path) -> None:
        behind(path)
        path.write_bytes(path.read_bytes() + gzip_bomb(6 << 30))

    yield image_case(
        "nifti-with-bomb-behind.nii.gz", ".nii.gz", padded, "refuse or read", RIGHT_VOXELS, VOLUME_OF_MASKS
    )
    yield image_case("sparse.png", ".png", sparse(1 << 38), "refuse")
    yield image_case("sparse.png.gz", ".png.gz", sparse(1 << 38), "refuse", short=True)
    yield image_case("sparse.tif", ".tif", sparse(1 << 38), "refuse")
    yield image_case("sparse.nii", ".nii", sparse(1 << 38), "refuse", None, VOLUME_OF_MASKS)
    yield image_case("sparse.dcm", ".dcm", sparse(1 << 38), "refuse", None, VOLUME_OF_MASKS)
    yield image_case("tiff-4-billion-square", ".tif", written(tiff(2**32 - 1, 2**32 - 1, data=bytes(480))), "refuse",
                     short=True)  # fmt: skip
    yield image_case("tiff-100000-square", ".tif", written(tiff(100_000, 100_000, data=bytes(480))), "refuse")
    yield image_case("tiff-of-no-height", ".tif", written(tiff(20, 0, data=bytes(480))), "refuse")
    many = {277: (3, 1, 65_535), 258: (3, 1, 8)}
    yield image_case("tiff-65535-bands", ".tif", written(tiff(20, 24, many, bytes(480))), "refuse")
    yield image_case(
        "tiff-4-billion-tags", ".tif", written(tiff(20, 24, {270: (2, 2**32 - 1, 8)}, bytes(480))), "survive"
    )
    yield image_case("tiff-strip-outside", ".tif", written(tiff(20, 24, {273: (4, 1, 2**31)}, bytes(480))), "refuse")
    yield image_case("tiff-99-bits", ".tif", written(tiff(20, 24, {258: (3, 1, 99)}, bytes(480))), "refuse")
    packed = written(tiff(20, 24, {259: (3, 1, 999)}, bytes(480)))
    yield image_case("tiff-unknown-compression", ".tif", packed, "refuse", short=True)
    twice, masks = as_items(GREY / RANGE).repeat(2, 0), (".tif", pages(MASK, MASK))
    yield image_case("tiff-pages-in-a-circle", ".tif", _tiff_loop, "refuse or read", twice, masks, short=True)
    yield image_case(
        "bmp-huge", ".bmp", patched(picture(PHOTO), 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)), "refuse"
    )
    yield image_case("bmp-negative", ".bmp", patched(picture(PHOTO), 18, struct.pack("<i", -20)), "refuse", short=True)
    yield image_case("ppm-huge", ".ppm", written(b"P6 999999999 999999999 255\n" + PHOTO.tobytes()), "refuse")
    yield image_case("ppm-of-words", ".ppm", written(b"P6 twenty 24 255\n" + PHOTO.tobytes()), "refuse")
    yield image_case("ppm-negative", ".ppm", written(b"P6 -20 24 255\n" + PHOTO.tobytes()), "refuse")
    yield image_case("ppm-largest-value-0", ".ppm", written(b"P6 20 24 0\n" + PHOTO.tobytes()), "refuse")
    yield image_case("ppm-endless-number", ".ppm", written(b"P6 " + b"9" * 5_000_000 + b" 24 255\n"), "refuse")
    yield image_case("gif-huge", ".gif", patched(picture(GREY), 6, struct.pack("<HH", 65535, 65535)), "survive")
    yield image_case("jpeg-huge", ".jpg", replaced(picture(PHOTO), struct.pack(">HH", *SIZE), b"\xff\xdc\xff\xdc"),
                     "refuse")  # fmt: skip


def _broken_volumes() -> Iterator[Case]:
    def volume(name: str, suffix: str, write: Write, must: Must = "refuse", short: bool = False) -> Case:
        return image_case(name, suffix, write, must, None, VOLUME_OF_MASKS, short)

    huge = [3, 32767, 32767, 32767, 1, 1, 1, 1]
    yield volume("nifti-huge", ".nii", _nifti_header(dim=huge), short=True)
    yield volume("nifti-negative-size", ".nii", _nifti_header(dim=[3, -20, 24, 3, 1, 1, 1, 1]))
    yield volume("nifti-of-no-size", ".nii", _nifti_header(dim=[3, 0, 24, 3, 1, 1, 1, 1]))
    yield volume("nifti-9-axes", ".nii", _nifti_header(dim=[9, 20, 24, 3, 1, 1, 1, 1]))
    yield volume("nifti-0-axes", ".nii", _nifti_header(dim=[0, 20, 24, 3, 1, 1, 1, 1]))
    yield volume("nifti-unknown-type", ".nii", _nifti_header(datatype=9999), short=True)
    yield volume("nifti-complex", ".nii", _nifti_header(datatype=32, bitpix=64))
    yield volume("nifti-data-far-away", ".nii", _nifti_header(vox_offset=1e12))
    yield volume("nifti-data-before-file", ".nii", _nifti_header(vox_offset=-352))
    yield volume("nifti-data-at-nan", ".nii", _nifti_header(vox_offset=np.nan))
    yield volume(
        "nifti-spacing-nan", ".nii", _nifti_header(pixdim=[1, np.nan, 1, 1, 1, 1, 1, 1]), "survive", short=True
    )
    yield volume("nifti-spacing-0", ".nii", _nifti_header(pixdim=[0] * 8), "survive")
    nan_affine = {"sform_code": 1, "srow_x": [np.nan] * 4, "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}
    yield volume("nifti-affine-nan", ".nii", _nifti_header(**nan_affine), "refuse", short=True)
    flat = {"sform_code": 1, "srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}
    yield volume("nifti-affine-of-zeros", ".nii", _nifti_header(**flat), "survive")
    yield volume("nifti-slope-inf", ".nii", _nifti_header(scl_slope=np.inf, scl_inter=0), "survive")
    yield volume("nifti-slope-huge", ".nii", _nifti_header(scl_slope=3e38, scl_inter=3e38), "survive")
    yield volume("nifti-all-nan", ".nii", nifti(np.full(VOXELS.shape, np.nan, np.float32)), "survive", short=True)
    yield volume("nifti-all-inf", ".nii", nifti(np.full(VOXELS.shape, np.inf, np.float32)), "survive")
    yield volume("nifti-3e38", ".nii", nifti(np.where(VOXELS > 500, 3e38, -3e38).astype(np.float32)), "survive")
    yield volume("nifti-time-series", ".nii", nifti(np.stack([VOXELS, VOXELS])))
    yield volume("nifti-header-of-a-pair", ".nii", _nifti_header(magic=b"ni1"), "survive")
    yield volume("nrrd-huge", ".nrrd", _nrrd(sizes="999999 999999 999999"), short=True)
    yield volume("nrrd-negative", ".nrrd", _nrrd(sizes="-20 24 3"))
    yield volume("nrrd-of-words", ".nrrd", _nrrd(sizes="a b c"))
    yield volume("nrrd-without-size", ".nrrd", _nrrd(sizes=""))
    yield volume("nrrd-unknown-type", ".nrrd", _nrrd(type="quaternion"))
    yield volume("nrrd-unknown-encoding", ".nrrd", _nrrd(encoding="rot13"))
    yield volume("nrrd-other-file", ".nrrd", _nrrd(data_file="../../../../../../etc/passwd"), short=True)
    yield volume("nrrd-17-axes", ".nrrd", _nrrd(dimension="17", sizes=" ".join("1" * 17)))
    yield volume("metaimage-huge", ".mha", _mha(DimSize="999999 999999 999999"))
    yield volume("metaimage-negative", ".mha", _mha(DimSize="-20 24 3"))
    yield volume("metaimage-of-words", ".mha", _mha(DimSize="a b c"), short=True)
    yield volume("metaimage-unknown-type", ".mha", _mha(ElementType="MET_QUATERNION"))
    yield volume("metaimage-other-file", ".mha", _mha(ElementDataFile="/etc/passwd"))
    yield volume("metaimage-list-of-files", ".mha", _mha(ElementDataFile="LIST"))
    yield volume("metaimage-99-axes", ".mha", _mha(NDims="99"))
    yield volume("dicom-magic-alone", ".dcm", written(bytes(128) + b"DICM"), short=True)
    rows = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, SIZE[0])
    yield volume("dicom-65535-rows", ".dcm", replaced(dicom_slice(), rows, rows[:-2] + b"\xff\xff"))
    yield volume("dicom-no-rows", ".dcm", replaced(dicom_slice(), rows, rows[:-2] + b"\0\0"))
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, VOXELS[0].nbytes)
    yield volume("dicom-length-lies", ".dcm", replaced(dicom_slice(), pixels, pixels[:-4] + b"\xfe\xff\xff\xff"))
    for name, spoil in {"gap": _with_gap, "empty-slice": _with_empty_slice, "cut-slice": _with_cut_slice}.items():
        yield volume(f"dicom-folder-{name}", "", spoil, short=name == "cut-slice")


def _series(folder: Path, indices: range) -> None:
    from tests.io.volume_files import dicom

    folder.mkdir()
    for index in indices:
        plane = np.roll(VOXELS[0], index)
        content = dicom(plane, [0, 0, 3.0 * index], number=index + 1, slope=1.0, intercept=0.0)
        (folder / f"slice{index}.dcm").write_bytes(content)


def _with_gap(path: Path) -> None:
    _series(path, range(6))
    (path / "slice3.dcm").unlink()


def _with_empty_slice(path: Path) -> None:
    _series(path, range(3))
    (path / "slice1.dcm").write_bytes(b"")


def _with_cut_slice(path: Path) -> None:
    _series(path, range(3))
    whole = (path / "slice1.dcm").read_bytes()
    (path / "slice1.dcm").write_bytes(whole[: len(whole) // 2])


def _other_types() -> Iterator[Case]:
    """Sound containers with values that are no image."""
    hole = np.roll(MASK, 5, axis=0) > 0
    nan = np.where(hole, np.nan, FLOATS).astype(np.float32)
    for name, value in {"nan": np.nan, "inf": np.inf}.items():
        write = geotiff(np.full(SIZE, value, np.float32))
        yield image_case(f"raster-all-{name}", ".tif", write, "refuse", None, RASTER_OF_MASK, name == "nan", _VERIFIED)
    holes = as_items(np.where(hole, 0, FLOATS / RANGE))
    yield image_case("raster-some-nan", ".tif", geotiff(nan), "read", holes, RASTER_OF_MASK, short=True)
    extreme = np.where(MASK > 0, 3e38, -3e38).astype(np.float32)
    yield image_case("raster-3e38", ".tif", geotiff(extreme), "survive", None, RASTER_OF_MASK)
    yield image_case("raster-complex", ".tif", geotiff(FLOATS.astype(np.complex64)), "refuse", None, RASTER_OF_MASK)
    yield image_case(
        "raster-2-bands", ".tif", geotiff(np.stack([FLOATS] * 2)), "refuse", None, RASTER_OF_MASK, short=True
    )
    yield image_case("raster-13-bands", ".tif", geotiff(np.stack([FLOATS] * 13)), "refuse", None, RASTER_OF_MASK)
    whole = geotiff(FLOATS, nodata=-9999.0)
    yield image_case("raster-nodata-elsewhere", ".tif", whole, "read", RIGHT_FLOATS, RASTER_OF_MASK)
    yield image_case("tiff-float-picture", ".tif", picture(FLOATS / 1000), "survive")
    yield image_case("photo-blank", ".png", picture(np.zeros((*SIZE, 3), np.uint8)), "refuse", ways=_VERIFIED)
    sideways = picture(np.rot90(PHOTO), exif=_orientation(6))  # to be turned by 90 degrees clockwise
    yield image_case("png-lying-on-its-side", ".png", sideways, "read", RIGHT_PHOTO)
    yield image_case("tiff-lying-on-its-side", ".tif", picture(np.rot90(PHOTO), tiffinfo={274: 6}), "read", RIGHT_PHOTO)
    for tag in (0, 9, 65535):
        odd = picture(PHOTO, exif=_orientation(tag))
        yield image_case(f"png-orientation-{tag}", ".png", odd, "refuse or read", RIGHT_PHOTO, short=tag == 9)


def _other_masks() -> Iterator[Case]:
    """Sound containers with values that are no mask, or in another place than the image."""
    wave = np.linspace(0, 255, SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8)
    yield mask_case("grey-levels.png", ".png", picture(wave), "refuse", None, short=True)
    yield mask_case("three-values.png", ".png", picture(MASK + np.roll(MASK, 3, axis=1)), "refuse", None)
    yield mask_case("coloured.png", ".png", picture(PHOTO), "refuse", None)
    yield mask_case("two-neither-zero.png", ".png", picture(MASK * 100 + 50), "refuse or read")
    yield mask_case("other-size.png", ".png", picture(np.pad(MASK, 1) * 255), "refuse", None, short=True)
    yield mask_case("on-its-side.png", ".png", picture(np.rot90(MASK).copy() * 255), "refuse", None)
    yield mask_case("floats.tif", ".tif", picture(FLOATS), "refuse", None)
    yield mask_case("nan.tif", ".tif", geotiff(np.where(MASK > 0, np.nan, 0).astype(np.float32)), "refuse", None,
                    (".tif", geotiff(FLOATS)), short=True, ways=_VERIFIED)  # fmt: skip
    nan_mask = nifti(np.where(VOXEL_MASK > 0, 1, np.nan).astype(np.float32))
    yield mask_case("nan-as-background.nii.gz", ".nii.gz", nan_mask, "refuse or read", RIGHT_VOXEL_MASK,
                    (".nii.gz", nifti(VOXELS)), short=True)  # fmt: skip
    inf_mask = nifti(np.where(VOXEL_MASK > 0, np.inf, 0).astype(np.float32))
    yield mask_case("inf-as-foreground.nii.gz", ".nii.gz", inf_mask, "survive", RIGHT_VOXEL_MASK,
                    (".nii.gz", nifti(VOXELS)))  # fmt: skip
    image = (".nii.gz", nifti(VOXELS))
    for name, column in {"mirrored": [-1.0, 1, 3, 1], "finer": [0.5, 0.5, 3, 1]}.items():
        write = nifti(VOXEL_MASK[..., ::-1] if name == "mirrored" else VOXEL_MASK, np.diag(column))
        must: Must = "refuse or read" if name == "mirrored" else "refuse"
        yield mask_case(f"{name}.nii.gz", ".nii.gz", write, must, RIGHT_VOXEL_MASK, image)
    yield mask_case("fewer-slices.nii.gz", ".nii.gz", nifti(VOXEL_MASK[:2]), "refuse", None, image, short=True)
    yield mask_case("volume-for-a-picture.nii.gz", ".nii.gz", nifti(VOXEL_MASK), "refuse", None)
    yield mask_case("picture-for-a-volume.png", ".png", picture(MASK * 255), "refuse", None, image)
    far = geotiff(MASK, transform=_shifted(4e5))
    yield mask_case("raster-far-away.tif", ".tif", far, "refuse", None, (".tif", geotiff(FLOATS)))
    other = geotiff(MASK, crs="EPSG:32645")
    yield mask_case("raster-of-other-zone.tif", ".tif", other, "refuse", None, (".tif", geotiff(FLOATS)))
    zeros = geotiff(MASK, nodata=0)
    yield mask_case("raster-nodata-0.tif", ".tif", zeros, "read", RIGHT_MASK, (".tif", geotiff(FLOATS)))
    inverted = Image.fromarray(MASK * 255).convert("RGB").quantize(2)
    yield mask_case("palette.gif", ".gif", inverted.save, "read")
    yield mask_case("palette.png", ".png", inverted.save, "read", short=True)
    bits = np.packbits(MASK == 0, axis=1).tobytes()  # PhotometricInterpretation 0: MinIsWhite
    white = tiff(SIZE[1], SIZE[0], {258: (3, 1, 1), 262: (3, 1, 0)}, bits)
    yield mask_case("min-is-white.tif", ".tif", written(white), "read")
    yield mask_case("grey-and-transparent.png", ".png", picture(np.stack([MASK * 255] * 3 + [MASK * 255], -1)), "read")


def _orientation(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = tag
    return exif


def _shifted(east: float):
    from rasterio.transform import from_origin

    return from_origin(5e5 + east, 5e6, 10, 10)


def cases() -> Iterator[Case]:
    """All of this module."""
    for make in (_damaged, _pretending, _no_files, _absurd, _broken_volumes, _other_types, _other_masks):
        yield from make()
