"""Files in and out: pictures, rasters, volumes and masks."""

from topolora_monai.io.geometry import align, file_geometry, shape_on_grid, size_on_grid
from topolora_monai.io.images import (
    IMAGE_SUFFIXES,
    ImageData,
    image_kind,
    image_orientation,
    image_size,
    read_blocks,
    read_image,
    require_whole,
)
from topolora_monai.io.masks import UNLABELLED, Labels, LabelValues, numbered, read_labels, read_mask
from topolora_monai.io.pictures import (
    deep_maximum,
    is_whole_png,
    open_picture,
    picture_size,
    read_picture,
    write_png,
)
from topolora_monai.io.rasters import is_raster, open_raster, read_bands
from topolora_monai.io.volume_header import volume_state
from topolora_monai.io.volumes import (
    default_axis,
    is_volume,
    read_volume,
    slice_count,
    volume_output_name,
    volume_shape,
    write_volume,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "UNLABELLED",
    "ImageData",
    "LabelValues",
    "Labels",
    "align",
    "deep_maximum",
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
    "read_blocks",
    "read_image",
    "read_labels",
    "read_mask",
    "read_picture",
    "read_volume",
    "require_whole",
    "shape_on_grid",
    "size_on_grid",
    "slice_count",
    "volume_output_name",
    "volume_shape",
    "volume_state",
    "write_png",
    "write_volume",
]
