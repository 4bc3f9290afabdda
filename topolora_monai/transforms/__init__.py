"""What MONAI's transforms lack."""

from topolora_monai.transforms.clahe import GreenClahed
from topolora_monai.transforms.cropping import RandForegroundCropd
from topolora_monai.transforms.deformation import RandConnectedElasticd
from topolora_monai.transforms.intensity import IntensityScaling
from topolora_monai.transforms.loading import LoadItem
from topolora_monai.transforms.skeleton import ExactSkeletond
from topolora_monai.transforms.speckle import RandSpeckled, RefinedLeed
from topolora_monai.transforms.squash import squash

__all__ = [
    "ExactSkeletond",
    "GreenClahed",
    "IntensityScaling",
    "LoadItem",
    "RandConnectedElasticd",
    "RandForegroundCropd",
    "RandSpeckled",
    "RefinedLeed",
    "squash",
]
