"""Tables, figures and summaries of what a network does."""

from topolora_monai.reports.evaluation import EvaluationReport, SplitScores, write_summary
from topolora_monai.reports.figures import comparison_figure

__all__ = ["EvaluationReport", "SplitScores", "comparison_figure", "write_summary"]
