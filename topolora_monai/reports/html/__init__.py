"""The report of one or several runs that people open: a page with a viewer, which prints as well."""

from topolora_monai.reports.html.report import write_report
from topolora_monai.reports.html.runs import Run, open_runs
from topolora_monai.reports.html.scores import best_value, score_title
from topolora_monai.reports.html.statistics import Comparison, Difference, Interval, compare_runs, mean_interval

__all__ = [
    "Comparison",
    "Difference",
    "Interval",
    "Run",
    "best_value",
    "compare_runs",
    "mean_interval",
    "open_runs",
    "score_title",
    "write_report",
]
