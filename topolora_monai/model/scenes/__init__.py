"""Georeferenced scenes of any size: read, segmented and written by bands of rows, and continued after a kill."""

from topolora_monai.model.scenes.segmenter import SceneSegmenter

__all__ = ["SceneSegmenter"]
