"""A plan as a file: settings of ``train.yaml`` with their reasons, for a person to read and edit."""

import difflib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from topolora_monai.errors import ConfigError, first_line
from topolora_monai.io.atomic import atomic_write, writing
from topolora_monai.io.regular import require_file
from topolora_monai.model.scale import PixelScale
from topolora_monai.planning.plan import PLAN_IDS, SAMPLINGS, SCALE_REASONS, Plan, network_stride

HEADING = "# topolora plan"
"""How the file of a plan begins."""
_WIDTH = 118
_ZOOMS = (1 / 16, 16)
_FAR = 1e6


def plan_text(plan: Plan) -> str:
    """The file's text."""
    lines = [
        f"{HEADING} for {plan.network_name}: edit it, and give it to a training after the recipe's own file,",
        "#   --config_file \"['configs/train.yaml','PLAN.yaml']\"",
    ]
    for sentence in plan.found:
        lines += _comment(sentence)
    for id_, value in plan.values().items():
        lines += ["", *_comment(plan.reasons.get(PLAN_IDS[id_], "given"))]
        lines.append(f"{id_}: {value!r}".replace("'", ""))
    return "\n".join(lines) + "\n"


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write it whole, or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    path = Path(path)
    with writing(path, "the plan", "choose another place"):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as beside:
            beside.write_text(plan_text(plan), encoding="utf-8")


def read_plan(path: str | Path, network_name: str | None = None) -> dict[str, Any]:
    """Settings of a plan, which a person may have edited; those that it leaves out are missing.

    Args:
        path: the file.
        network_name: that is to be trained with them; None for none.

    Returns:
        By the ids of ``train.yaml``.

    Raises:
        DataError: if the file is not there.
        ConfigError: for a value that cannot work, an id that no plan has, or one given twice; names the line.
    """
    path = Path(path)
    require_file(path, missing="plan not found", hint="make one with topolora plan")
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for id_, value, line in _entries(path):
        if id_ not in PLAN_IDS:
            close = difflib.get_close_matches(id_, PLAN_IDS, n=1)
            hint = f"did you mean {close[0]}?" if close else "give it on the command line, or in another file"
            raise _wrong(path, line, f"a plan has no {id_}", ", ".join(PLAN_IDS), id_, hint)
        if id_ in found:
            raise _wrong(path, line, f"{id_} is given twice", "one value", f"another in line {lines[id_]}", "keep one")
        words = _words(id_, value)
        if words:
            raise _wrong(path, line, f"wrong {id_}", words, repr(value), "correct it")
        found[id_], lines[id_] = value, line
    _check_sizes(path, found, lines, 1 if network_name is None else network_stride(network_name))
    return found


def given_scale(match: Any) -> Any:
    """What ``match_scale`` of a configuration says, with the pixel scale of a plan in place of its path.

    Args:
        match: as :class:`~topolora_monai.model.scale.ScaleMatch` takes it, or the path of a plan of the new images,
            which ends in ``.yaml``.

    Raises:
        DataError, ConfigError: as :func:`read_plan`.

    Example:
        >>> given_scale(1.7), given_scale("5.1px")
        (1.7, '5.1px')
    """
    if not str(match).endswith((".yaml", ".yml")):
        return match
    values = read_plan(match)
    return PixelScale(*(values.get(f"model#{name}") for name in PixelScale._fields))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ")


def _entries(path: Path) -> Iterator[tuple[str, Any, int]]:
    """Every id, its value and its line, from 1."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or first_line(error)
        raise _wrong(
            path, mark.line + 1 if mark else 1, "not YAML", "one `id: value` a line", problem, "correct it"
        ) from error
    if not isinstance(node, yaml.MappingNode):
        raise _wrong(path, 1, "not a plan", "one `id: value` a line", "something else", "make one with topolora plan")
    for key, value in node.value:
        yield str(key.value), _value(value), key.start_mark.line + 1


def _value(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    return loader.construct_object(node, deep=True)


def _words(id_: str, value: Any) -> str | None:
    """What the value should have been; None if it is."""
    if id_ == "sampling":
        return None if value in SAMPLINGS else " or ".join(SAMPLINGS)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if id_ == "learning_rate":
        return None if number and 0 < value < 1 else "a number above 0 and below 1, such as 5.0e-4"
    if PLAN_IDS[id_] == "overlap":
        return None if number and 0 <= value < 1 else "a number from 0 to below 1"
    if PLAN_IDS[id_] in SCALE_REASONS:
        return None if number and 0 < value < _FAR else "a number of pixels above 0"
    least, most = (16, 8192) if id_ in ("image_size", "crop_size") else (1, 1_000_000)
    return (
        None
        if number and isinstance(value, int) and least <= value <= most
        else f"a whole number from {least} to {most:,}"
    )


def _check_sizes(path: Path, found: dict[str, Any], lines: dict[str, int], stride: int) -> None:
    size = found.get("image_size")
    if size is not None and size % stride:
        below = max(stride, size // stride * stride)
        raise _wrong(
            path, lines["image_size"], "image_size does not fit the network", f"a multiple of {stride}", size,
            f"take {below} or {below + stride}",
        )  # fmt: skip
    if size is None or "crop_size" not in found:
        return
    zoom = size / found["crop_size"]
    if not _ZOOMS[0] <= zoom <= _ZOOMS[1]:
        raise _wrong(
            path,
            lines["crop_size"],
            "crop_size and image_size are too far apart",
            f"crops from {size // _ZOOMS[1]} to {int(size / _ZOOMS[0])} px at image_size {size}",
            found["crop_size"],
            "the network would see nothing: take a crop nearer to image_size",
        )


def _wrong(path: Path, line: int, message: str, expected: Any, found: Any, hint: str) -> ConfigError:
    return ConfigError(message, path=f"{path}, line {line}", expected=expected, found=found, hint=hint)
