"""Tables, figures and summaries of what a network does."""

from topolora_monai.reports.curves import curve_points, curves_record
from topolora_monai.reports.evaluation import EvaluationReport, SplitScores, run_record, write_summary
from topolora_monai.reports.figures import comparison_figure
from topolora_monai.reports.image_scores import IMAGE_SCORES, ImageScores, check_scores
from topolora_monai.reports.layers import ClassLayers, ImageLayers, find_layers, write_layers

__all__ = [
    "IMAGE_SCORES",
    "ClassLayers",
    "EvaluationReport",
    "ImageLayers",
    "ImageScores",
    "SplitScores",
    "check_scores",
    "comparison_figure",
    "curve_points",
    "curves_record",
    "find_layers",
    "run_record",
    "write_layers",
    "write_summary",
]
