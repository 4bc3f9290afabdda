"""What an annotator's tools ask of the package: masks, clicks, what to annotate next, and learning from it."""

from topolora_monai.annotation.correction import apply_click
from topolora_monai.annotation.embeddings import EmbeddingCache
from topolora_monai.annotation.prompts import Click, Prompts, Stroke
from topolora_monai.annotation.segmenter import AnnotationSegmenter
from topolora_monai.annotation.simulated import SimulatedAnnotation, annotate, mean_course, next_click, next_wire
from topolora_monai.annotation.tracing import bridge, half_width, paint, stroke_path, trace
from topolora_monai.annotation.training import FineTuning, Progress, TrainingSettings, fine_tune, split_pairs
from topolora_monai.annotation.uncertainty import (
    TopologicalUncertainty,
    UncertaintyKind,
    mean_entropy,
    probable_breaks,
    random_score,
    rated_breaks,
    topological_uncertainty,
    uncertainty_score,
)
from topolora_monai.annotation.versions import AdapterVersion, AdapterVersions, VersionChange

__all__ = [
    "AdapterVersion",
    "AdapterVersions",
    "AnnotationSegmenter",
    "Click",
    "EmbeddingCache",
    "FineTuning",
    "Progress",
    "Prompts",
    "SimulatedAnnotation",
    "Stroke",
    "TopologicalUncertainty",
    "TrainingSettings",
    "UncertaintyKind",
    "VersionChange",
    "annotate",
    "apply_click",
    "bridge",
    "fine_tune",
    "half_width",
    "mean_course",
    "mean_entropy",
    "next_click",
    "next_wire",
    "paint",
    "probable_breaks",
    "random_score",
    "rated_breaks",
    "split_pairs",
    "stroke_path",
    "topological_uncertainty",
    "trace",
    "uncertainty_score",
]
