"""What MONAI's transforms lack."""

from topolora_monai.transforms.loading import LoadItem
from topolora_monai.transforms.skeleton import ExactSkeletond

__all__ = ["ExactSkeletond", "LoadItem"]
