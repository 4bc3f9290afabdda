"""What a trained model is."""

from topolora_monai.model.spec import MODEL_FORMAT, ModelSpec, TrainingRecipe

__all__ = ["MODEL_FORMAT", "ModelSpec", "TrainingRecipe"]
