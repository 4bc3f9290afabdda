"""The report as one HTML page that needs nothing else but the pictures beside it."""

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

import topolora_monai
from topolora_monai.reports.colours import ERROR_COLOURS, MARK_COLOURS, as_hex, viridis
from topolora_monai.reports.html.answer import KEY_FIGURES, comparison_sentence, run_sentence, telling_images
from topolora_monai.reports.html.charts import DASHES, as_svg
from topolora_monai.reports.html.facts import calibration_facts, known_number, run_facts
from topolora_monai.reports.html.pictures import ImagePictures
from topolora_monai.reports.html.run_charts import difference_charts, quality_charts, training_charts
from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.scores import (
    COUNTS,
    best_value,
    first_shown,
    lower_is_better,
    score_title,
    short_score,
    show_score,
    worst_score,
)
from topolora_monai.reports.html.statistics import compare_runs, mean_interval

_FIRST_SHOWN = 24


class _ImageRow(NamedTuple):
    """One image of one run, which has a number."""

    run: int
    name: str
    scores: dict[str, float | None]
    pictures: ImagePictures


def render_page(runs: Sequence[Run], pictures: Sequence[Mapping[str, ImagePictures]]) -> str:
    """HTML of a report.

    All text of the runs is escaped, and the page's policy lets no script run but its own.

    Args:
        runs: the first is the one that others are compared with.
        pictures: of each run, by the image's name.
    """
    templates = resources.files("topolora_monai.reports.html") / "templates"
    page, style, script = (
        (templates / name).read_text(encoding="utf-8") for name in ("report.html.jinja", "report.css", "report.js")
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(score=show_score, short=short_score, hex=as_hex, title=score_title)
    environment.filters["best"] = best_value
    environment.filters["change"] = lambda value: show_score(value) if math.isnan(value) else f"{value:+.4f}"
    environment.tests["missing"] = lambda value: value is None or math.isnan(value)
    numbered = iter(range(10_000))
    content = _content(runs, pictures)
    return environment.from_string(page).render(
        content=content,
        data=_data(content),
        version=topolora_monai.__version__,
        style=Markup(style),
        hidden_columns=_hidden_columns(content),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        svg=lambda chart: as_svg(chart, next(numbered)),
        dashes=DASHES,
        error_colours=ERROR_COLOURS,
        mark_colours=MARK_COLOURS,
        heat=", ".join(as_hex((int(r), int(g), int(b))) for r, g, b in viridis()[::32]),
        first_shown=_FIRST_SHOWN,
        cell=lambda image, score: show_score(image.scores.get(score), score in content["whole"]),
    )


def _content(runs: Sequence[Run], pictures: Sequence[Mapping[str, ImagePictures]]) -> dict[str, Any]:
    """What the page says of the runs, by the names that its template uses."""
    images = [
        _ImageRow(
            number,
            name,
            {
                **dict(zip(COUNTS, of_run[name].counts(), strict=True)),
                **{score: known_number(values[row]) for score, values in run.scores.items()},
            },
            of_run[name],
        )
        for number, (run, of_run) in enumerate(zip(runs, pictures, strict=True))
        for row, name in enumerate(run.names)
    ]
    of_files = list(dict.fromkeys(score for run in runs for score in run.scores))
    counted = [name for name in COUNTS if any(image.scores.get(name) is not None for image in images)]
    scores = list(dict.fromkeys([*of_files, *counted]))
    comparisons = compare_runs(runs)
    facts, settings = run_facts(runs)
    worst_by = worst_score(of_files)
    worst_first = _worst_first(images, worst_by)
    ranked = [n for n in worst_first if images[n].scores.get(worst_by) is not None]
    summary = list(_summary(runs, images))
    means = [{row["score"]: row["images"] for row in summary if row["run"] == number} for number in range(len(runs))]
    return {
        "answers": [run_sentence(*of) for of in zip(runs, means, strict=True)],
        "verdicts": [comparison_sentence(one) for one in comparisons],
        "key_figures": [score for score in KEY_FIGURES if score in scores] or first_shown(of_files)[:3],
        "in_words": KEY_FIGURES,
        "telling": [telling_images([n for n in ranked if images[n].run == number]) for number in range(len(runs))],
        "labels": [run.label for run in runs],
        "classes": [run.classes for run in runs],
        "facts": facts,
        "settings": settings,
        "training": training_charts(runs),
        "summary": summary,
        "quality": quality_charts(runs),
        "calibration": calibration_facts(runs),
        "comparisons": comparisons,
        "differences": difference_charts(comparisons),
        "scores": scores,
        "shown": first_shown(scores),
        "images": images,
        "whole": {score for score in scores if _is_whole(images, score)},
        "worst_by": worst_by,
        "worst_first": worst_first,
    }


def _is_whole(images: Sequence[_ImageRow], score: str) -> bool:
    values = np.array([value for image in images if (value := image.scores.get(score)) is not None])
    return bool((values == np.rint(values)).all() and (lower_is_better(score) or values.max() > 1))


def _worst_first(images: Sequence[_ImageRow], score: str) -> list[int]:
    """Numbers of the images, those without the score last."""
    sign = -1 if lower_is_better(score) else 1
    values = [image.scores.get(score) for image in images]
    badness = [(value is None, 0.0 if value is None else sign * value) for value in values]
    return sorted(range(len(images)), key=badness.__getitem__)


def _summary(runs: Sequence[Run], images: Sequence[_ImageRow]) -> Iterator[dict[str, Any]]:
    """Each score and count of each run: pooled over all pixels, and over images."""
    for number, run in enumerate(runs):
        counted = [[image.scores[name] for image in images if image.run == number] for name in COUNTS]
        counts = {name: np.array(of, float) for name, of in zip(COUNTS, counted, strict=True) if set(of) != {None}}
        for score, values in (run.scores | counts).items():
            yield {
                "run": number,
                "score": score,
                "pooled": known_number(run.record.get("test", {}).get(score)),
                "images": mean_interval(values),
                "lowest": float(np.nanmin(values)),
                "highest": float(np.nanmax(values)),
            }


def _data(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the viewer needs of each image, as JSON."""
    return {
        "runs": content["labels"],
        "classes": content["classes"],
        "lower": [score for score in content["scores"] if lower_is_better(score)],
        "images": [
            {
                "run": image.run,
                "name": image.name,
                "size": image.pictures.size,
                "files": image.pictures.files,
                "classes": [{"files": one.files, "counts": one.counts} for one in image.pictures.classes],
            }
            for image in content["images"]
        ],
    }


def _hidden_columns(content: Mapping[str, Any]) -> Markup:
    """A rule that leaves columns out of the table of images, as the page's script writes it once others are chosen."""
    before = 2 if len(content["labels"]) > 1 else 1  # the name and the run
    places = [before + place for place, score in enumerate(content["scores"], start=1) if score not in content["shown"]]
    return Markup("".join(f"#table tr > :nth-child({place}) {{ display: none; }}" for place in places))
