"""The report as one HTML page that needs nothing else but the pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import math
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import topolora_monai
from topolora_monai.reports.html.charts import DASHES, as_svg
from topolora_monai.reports.html.colours import ERROR_COLOURS, MARK_COLOURS, as_hex, viridis
from topolora_monai.reports.html.content import Content
from topolora_monai.reports.html.scores import best_value, lower_is_better, score_title, show_score

__all__ = ["render_page"]

_FIRST_SHOWN = 24


def render_page(content: Content) -> str:
    """HTML of a report.

    All text of the runs is escaped, and the page's policy lets no script run but its own.

    Args:
        content: what it says.
    """
    templates = resources.files("topolora_monai.reports.html") / "templates"
    script = (templates / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": (templates / "report.html.jinja").read_text(encoding="utf-8")}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": show_score,
        "change": _change,
        "hex": as_hex,
        "title": score_title,
        "best": best_value,
    }
    environment.tests["missing"] = _missing
    numbered = iter(range(10_000))
    return environment.get_template("page").render(
        content=content,
        data=_data(content),
        version=topolora_monai.__version__,
        style=Markup((templates / "report.css").read_text(encoding="utf-8")),
        hidden_columns=_hidden_columns(content),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        svg=lambda chart: as_svg(chart, next(numbered)),
        dashes=[" ".join(f"{length:g}" for length in dash) or "none" for dash in DASHES],
        error_colours=ERROR_COLOURS,
        mark_colours=MARK_COLOURS,
        heat=", ".join(as_hex((int(r), int(g), int(b))) for r, g, b in viridis()[::32]),
        first_shown=_FIRST_SHOWN,
        cell=lambda image, score: show_score(image.scores.get(score), score in content.whole),
    )


def _data(content: Content) -> dict[str, Any]:
    """What the viewer needs of each image, as JSON."""
    return {
        "runs": list(content.labels),
        "classes": [list(classes) for classes in content.classes],
        "lower": [score for score in content.scores if lower_is_better(score)],
        "images": [
            {
                "run": image.run,
                "name": image.name,
                "size": image.pictures.size,
                "files": image.pictures.files,
                "classes": [
                    {"files": one.files, "counts": [one.breaks, one.bridges, one.false_components]}
                    for one in image.pictures.classes
                ],
            }
            for image in content.images
        ],
    }


def _hidden_columns(content: Content) -> Markup:
    """A rule that leaves columns out of the table of images, as the page's script writes it once others are chosen."""
    before = 2 if len(content.labels) > 1 else 1  # the name and the run
    places = [before + place for place, score in enumerate(content.scores, start=1) if score not in content.shown]
    return Markup("".join(f"#table tr > :nth-child({place}) {{ display: none; }}" for place in places))


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _change(value: float) -> str:
    return show_score(value) if math.isnan(value) else f"{value:+.4f}"
