"""The report on paper: the same numbers, charts and worst images as a PDF, without a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from topolora_monai.io.atomic import atomic_write
from topolora_monai.reports.html.charts import Chart
from topolora_monai.reports.html.colours import ERROR_COLOURS, MARK_COLOURS
from topolora_monai.reports.html.content import Content
from topolora_monai.reports.html.paper import GREY, Paper, latin
from topolora_monai.reports.html.paper_charts import draw_chart
from topolora_monai.reports.html.scores import NO_SCORE, best_value, score_title, show_score
from topolora_monai.reports.html.statistics import Comparison

__all__ = ["write_pdf"]

_SHOWN_IMAGES = 24
_MOST_COLUMNS = 9  # scores that fit beside a name


def write_pdf(content: Content, path: str | Path, report: str | Path) -> None:
    """Write the report as a PDF of A4 pages.

    Args:
        content: what it says.
        path: where to.
        report: folder that the pictures' paths are relative to.

    Raises:
        OSError: if it cannot be written; an older file is left as it was.
    """
    paper = Paper()
    paper.set_title(latin("Segmentation report: " + ", ".join(content.labels)))
    paper.add_page()
    paper.heading("Segmentation report", 18)
    paper.words(", ".join(content.labels))
    paper.heading("What was trained on what")
    paper.facts(content.labels, content.facts)
    _charts(paper, "Training curves", content.training)
    _summary(paper, content)
    for comparison in content.comparisons:
        _comparison(paper, comparison)
    _charts(paper, "Differences", content.differences)
    _charts(paper, "Probabilities", content.quality)
    if content.calibration:
        paper.facts(content.labels, content.calibration)
    _worst(paper, content, Path(report))
    _table(paper, content)
    with atomic_write(path) as beside:
        beside.write_bytes(bytes(paper.output()))


def _charts(paper: Paper, title: str, charts: Sequence[Chart]) -> None:
    if not charts:
        return
    paper.keep(85)  # the heading and the first row of charts
    paper.heading(title)
    width, height = (paper.epw - 6) / 2, 66.0
    for start in range(0, len(charts), 2):
        paper.keep(height)
        top = paper.get_y()
        for place, chart in enumerate(charts[start : start + 2]):
            draw_chart(paper, chart, (paper.l_margin + place * (width + 6), top, width, height - 4))
        paper.set_xy(paper.l_margin, top + height)
    paper.set_font("Helvetica", size=9)


def _summary(paper: Paper, content: Content) -> None:
    paper.heading("Scores")
    paper.words(
        "Pooled scores are the evaluation's own of all images together. Best says which end of the scale is the good "
        "one. Means are over images, with a 95 % interval "
        "from 10,000 bootstrap samples of the images."
    )
    heads = ("Score", "Best", "Run", "Pooled", "Mean", "95 % interval", "Lowest", "Highest", "Images")
    rows = [
        (
            score_title(row.score),
            best_value(row.score),
            content.labels[row.run],
            show_score(row.pooled),
            show_score(row.images.mean),
            f"{show_score(row.images.low)} to {show_score(row.images.high)}",
            show_score(row.lowest),
            show_score(row.highest),
            str(row.images.count),
        )
        for row in content.summary
    ]
    paper.rows(heads, rows, (3.6, 0.9, 2.8, 1.6, 1.6, 3.2, 1.6, 1.6, 1.2))


def _comparison(paper: Paper, comparison: Comparison) -> None:
    paper.heading(f"{comparison.second} minus {comparison.first}")
    if not comparison.names:
        paper.words("These two runs share no image: nothing can be compared.")
        return
    paper.words(
        f"On the {len(comparison.names)} images that both scored, image by image; p is of Wilcoxon's signed-rank test, "
        "two-sided, not corrected for the number of scores."
    )
    rows = [
        (
            score_title(one.score),
            best_value(one.score),
            show_score(one.first),
            show_score(one.second),
            f"{one.difference.mean:+.4f}",
            _range(one.difference.low, one.difference.high),
            NO_SCORE if math.isnan(one.p_value) else "< 0.0001" if one.p_value < 1e-4 else f"{one.p_value:.4f}",
            str(one.better),
            str(one.worse),
        )
        for one in comparison.differences
    ]
    paper.rows(
        ("Score", "Best", "First", "Second", "Difference", "95 % interval", "p", "Better", "Worse"),
        rows,
        (3.6, 0.9, 1.6, 1.6, 1.9, 3.3, 1.6, 1.2, 1.2),
    )


def _worst(paper: Paper, content: Content, report: Path) -> None:
    shown = [content.images[number] for number in content.worst_first()[:_SHOWN_IMAGES]]
    shown = [image for image in shown if image.pictures.thumbnail]
    if not shown:
        return
    paper.keep(80)
    paper.heading(f"Worst first, by {score_title(content.worst_by)}")
    if any(image.pictures.size for image in shown):
        _picture_legend(paper)
    columns, gap = 4, 3.0
    width = (paper.epw - gap * (columns - 1)) / columns
    height = width + 9
    for start in range(0, len(shown), columns):
        paper.keep(height)
        top = paper.get_y()
        for place, image in enumerate(shown[start : start + columns]):
            left = paper.l_margin + place * (width + gap)
            paper.image(
                report / str(image.pictures.thumbnail), left, top, width, width, keep_aspect_ratio=True,
                alt_text=latin(f"errors of {image.name}"),
            )  # fmt: skip
            paper.set_font("Helvetica", size=7)
            paper.text(left, top + width + 3, paper.fitting(image.name, width))
            value = f"{score_title(content.worst_by)} {show_score(image.scores.get(content.worst_by))}"
            run = f"  {content.labels[image.run]}" if len(content.labels) > 1 else ""
            paper.text(left, top + width + 6, paper.fitting(value + run, width))
        paper.set_xy(paper.l_margin, top + height)
    paper.set_font("Helvetica", size=9)


def _picture_legend(paper: Paper) -> None:
    x, y = paper.l_margin, paper.get_y()
    paper.set_font("Helvetica", size=7)
    paper.set_draw_color(*GREY)
    paper.set_line_width(0.2)
    for name, colour in (ERROR_COLOURS | MARK_COLOURS).items():
        paper.set_fill_color(*colour)
        paper.rect(x, y, 3, 3, style="DF")
        paper.text(x + 4, y + 2.4, name)
        x += 7 + paper.get_string_width(name)
    paper.set_xy(paper.l_margin, y + 5)


def _table(paper: Paper, content: Content) -> None:
    paper.heading("All images")
    scores = content.shown[:_MOST_COLUMNS]
    if len(content.scores) > len(scores):
        paper.words(f"{len(scores)} of {len(content.scores)} scores; the page has all.")
    several = len(content.labels) > 1
    rows = [
        (
            image.name,
            *([content.labels[image.run]] if several else []),
            *(show_score(image.scores.get(score), score in content.whole) for score in scores),
        )
        for image in content.images
    ]
    paper.rows(
        ("Image", *(["Run"] if several else []), *map(score_title, scores)),
        rows,
        (2.6, *([2.2] if several else []), *[1.6] * len(scores)),
    )


def _range(low: float, high: float) -> str:
    return NO_SCORE if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
