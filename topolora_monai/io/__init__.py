"""Files in and out: pictures, rasters, volumes and masks."""

from topolora_monai.io.images import (
    IMAGE_SUFFIXES,
    ImageData,
    Kind,
    image_kind,
    image_size,
    read_blocks,
    read_image,
    require_whole,
)
from topolora_monai.io.masks import UNLABELLED, Labels, LabelValues, numbered, read_labels, read_mask
from topolora_monai.io.pictures import PICTURE_SUFFIXES, deep_maximum, open_picture, read_picture, write_png
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
    "ImageData",
    "Kind",
    "LabelValues",
    "Labels",
    "deep_maximum",
    "default_axis",
    "image_kind",
    "image_size",
    "is_raster",
    "is_volume",
    "numbered",
    "open_picture",
    "open_raster",
    "read_bands",
    "read_blocks",
    "read_image",
    "read_labels",
    "read_mask",
    "read_picture",
    "read_volume",
    "require_whole",
    "slice_count",
    "volume_output_name",
    "volume_shape",
    "volume_state",
    "write_png",
    "write_volume",
]
