"""One module per data set, and the files they are made of."""

from topolora_monai.data.drive import Drive
from topolora_monai.data.files import read_image, read_mask, write_png
from topolora_monai.data.folder import Folder
from topolora_monai.data.inputs import find_images
from topolora_monai.data.items import SPLITS, Item, Split, check_items, without_fov
from topolora_monai.data.registry import DATASET_NAMES, SegmentationData, open_dataset
from topolora_monai.data.synthetic_vessels import SyntheticVessels

__all__ = [
    "DATASET_NAMES",
    "SPLITS",
    "Drive",
    "Folder",
    "Item",
    "SegmentationData",
    "Split",
    "SyntheticVessels",
    "check_items",
    "find_images",
    "open_dataset",
    "read_image",
    "read_mask",
    "without_fov",
    "write_png",
]
