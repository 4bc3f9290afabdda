"""Files in and out: pictures, rasters, volumes and masks."""

from topolora_monai.io.geometry import Alignment, Geometry, align, file_geometry, shape_on_grid, size_on_grid
from topolora_monai.io.images import (
    IMAGE_SUFFIXES,
    ImageData,
    Kind,
    image_kind,
    image_orientation,
    image_size,
    read_image,
)
from topolora_monai.io.masks import UNLABELLED, Labels, LabelValues, numbered, read_labels, read_mask
from topolora_monai.io.pictures import (
    PICTURE_SUFFIXES,
    is_whole_png,
    open_picture,
    picture_size,
    read_picture,
    write_png,
)
from topolora_monai.io.rasters import is_raster, open_raster, read_bands
from topolora_monai.io.volumes import (
    VOLUME_SUFFIXES,
    default_axis,
    is_volume,
    read_volume,
    slice_count,
    volume_output_name,
    volume_shape,
    volume_state,
    write_volume,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "PICTURE_SUFFIXES",
    "UNLABELLED",
    "VOLUME_SUFFIXES",
    "Alignment",
    "Geometry",
    "ImageData",
    "Kind",
    "LabelValues",
    "Labels",
    "align",
    "default_axis",
    "file_geometry",
    "image_kind",
    "image_orientation",
    "image_size",
    "is_raster",
    "is_volume",
    "is_whole_png",
    "numbered",
    "open_picture",
    "open_raster",
    "picture_size",
    "read_bands",
    "read_image",
    "read_labels",
    "read_mask",
    "read_picture",
    "read_volume",
    "shape_on_grid",
    "size_on_grid",
    "slice_count",
    "volume_output_name",
    "volume_shape",
    "volume_state",
    "write_png",
    "write_volume",
]
