"""What MONAI's transforms lack."""

from topolora_monai.transforms.clahe import GreenClahed
from topolora_monai.transforms.cropping import RandForegroundCropd
from topolora_monai.transforms.deformation import ExactSkeletond, RandConnectedElasticd
from topolora_monai.transforms.intensity import IntensityScaling
from topolora_monai.transforms.loading import LoadItem, squash
from topolora_monai.transforms.speckle import RandSpeckled, RefinedLeed

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
