"""What there is to run: data sets by rows by seeds, as a matrix's file says."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCORES = ("dice", "iou", "cldice", "betti_0_error", "betti_1_error")
"""Of single images, where a matrix names none."""
OF_ROW = ("title", "recipe", "per_data", "only_on", "budget_minutes")
"""What of a row is no option of the bundle."""


class Run(NamedTuple):
    """One network on one data set by one seed."""

    data: str
    row: str
    seed: int

    @property
    def cell(self) -> str:
        """What patterns fit."""
        return f"{self.data}/{self.row}"

    @property
    def name(self) -> str:
        """Of its folder and file."""
        return f"{self.data}_{self.row}_seed{self.seed}"


def read_matrix(path: Path) -> dict[str, Any]:
    """A matrix with its name.

    Raises:
        SystemExit: for what is not one.
    """
    matrix: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    absent = [key for key in ("data", "rows", "seeds") if not matrix.get(key)]
    if absent:
        raise SystemExit(f"{path}: {', '.join(absent)} missing")
    rows = matrix["rows"]
    unknown = {name for row in rows.values() for key in ("per_data", "only_on") for name in row.get(key, ())}
    if unknown := unknown - {*matrix["data"]}:
        raise SystemExit(f"{path}: no data are called {sorted(unknown)}")
    if odd := [f"{key} of {name}" for name, row in rows.items() for key in row if not isinstance(key, str)]:
        raise SystemExit(f"{path}: {', '.join(odd)} is no text; YAML reads on, off, yes and no as True and False")
    return {"name": path.stem, **matrix}


def planned(matrix: Mapping[str, Any]) -> Iterator[Run]:
    """Every run; the first seed of all comes first, data sets and rows in the matrix's order."""
    cells = [
        (data, row)
        for data in matrix["data"]
        for row, options in matrix["rows"].items()
        if data in options.get("only_on", matrix["data"])
    ]
    runs = [Run(*cell, seed) for seed in matrix["seeds"] for cell in cells]
    more = matrix.get("more_seeds", {}).items()
    runs += [Run(*cell, seed) for cell in cells for fits, of in more if fnmatch("/".join(cell), fits) for seed in of]
    yield from dict.fromkeys(runs)


def training_options(matrix: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """What the bundle is told for a run."""
    row = matrix["rows"][run.row]
    own = {key: value for key, value in row.items() if key not in OF_ROW} | row.get("per_data", {}).get(run.data, {})
    return {**matrix.get("training", {}), **matrix["data"][run.data].get("training", {}), **own, "seed": run.seed}


def reason_to_skip(matrix: Mapping[str, Any], run: Run) -> str | None:
    """What the matrix says against a run, or what it lacks here."""
    for pattern, reason in matrix.get("skip", {}).items():
        if fnmatch(run.cell, pattern):
            return str(reason)
    options = training_options(matrix, run)
    weights, folder = options.get("weights"), options.get("dataset_dir")
    if isinstance(weights, str) and "/" in weights and not Path(weights).is_file():
        return f"weights not to be had: no file {weights}"
    if folder and not Path(folder).exists() and "speckle_of" not in matrix["data"][run.data]:
        return f"data not to be had: no folder {folder}"
    return None


def read_record(results: Path, run: Run) -> dict[str, Any] | None:
    path = results / f"{run.name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def run_path(text: Any) -> str:
    """Without the folder that everything lies in on this machine."""
    return str(text).replace(f"{Path.cwd()}/", "").replace(f"{ROOT}/", "")
