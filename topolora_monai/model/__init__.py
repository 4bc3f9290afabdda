"""How a trained model makes masks of images; what it is stands in :mod:`topolora_monai.spec`."""

from topolora_monai.spec import MODEL_FORMAT, ModelSpec, TrainingRecipe

__all__ = ["MODEL_FORMAT", "ModelSpec", "TrainingRecipe"]
