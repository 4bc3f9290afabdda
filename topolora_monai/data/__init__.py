"""One module per data set, and what they are made of."""

from topolora_monai.data.benchmark import Benchmark, Facts, Modality
from topolora_monai.data.caching import cached
from topolora_monai.data.depth import fitted_scaling
from topolora_monai.data.download import file_sha256
from topolora_monai.data.drive import Drive
from topolora_monai.data.folder import Folder
from topolora_monai.data.inputs import find_images
from topolora_monai.data.items import SPLITS, Item, Split, check_item, check_items, without_fov
from topolora_monai.data.pictures import contact_sheet, overlay
from topolora_monai.data.registry import BENCHMARKS, DATASET_NAMES, SegmentationData, open_dataset
from topolora_monai.data.sample_seeds import SampleSeeds, WholeBatches
from topolora_monai.data.slices import expand_slices
from topolora_monai.data.split_record import check_unseen, record_split, trained_on
from topolora_monai.data.synthetic_vessels import SyntheticVessels
from topolora_monai.data.verification import Verification, verify

__all__ = [
    "BENCHMARKS",
    "DATASET_NAMES",
    "SPLITS",
    "Benchmark",
    "Drive",
    "Facts",
    "Folder",
    "Item",
    "Modality",
    "SampleSeeds",
    "SegmentationData",
    "Split",
    "SyntheticVessels",
    "Verification",
    "WholeBatches",
    "cached",
    "check_item",
    "check_items",
    "check_unseen",
    "contact_sheet",
    "expand_slices",
    "file_sha256",
    "find_images",
    "fitted_scaling",
    "open_dataset",
    "overlay",
    "record_split",
    "trained_on",
    "verify",
    "without_fov",
]
