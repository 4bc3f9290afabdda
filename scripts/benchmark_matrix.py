"""Train and evaluate many runs through the bundle, and put them into one table.

    python scripts/benchmark_matrix.py scripts/matrices/drive_methods.yaml --json results/drive_methods.json

A matrix is a YAML file: ``training`` and ``evaluating`` hold options that all runs share, ``runs`` the options of each
by its name, ``seeds`` the seeds of all runs, ``more_seeds`` those that single runs have besides. Runs that are finished
are not repeated, one that was killed resumes: give the same command again. The table is written after every run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
SCORES = ("dice", "dice_at_half", "cldice", "auc", "iou")
SETTINGS = (
    *("dataset", "partial", "network_name", "pretrained", "base_sha256", "adaptation", "trainable"),
    *("image_size", "crop_size", "batch_size", "learning_rate", "epochs", "hardware", "commit"),
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--output_dir", type=Path, help="folder of the runs, runs/NAME_OF_MATRIX when not given")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="these runs only")
    parser.add_argument("--table_only", action="store_true", help="train nothing, collect what is there")
    return parser.parse_args()


def planned(matrix: dict[str, Any], only: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Name, seed and training options of every run; the first seed of all comes first."""
    more = matrix.get("more_seeds", {})
    everything = [(name, seed) for seed in matrix["seeds"] for name in matrix["runs"]]
    everything += [(name, seed) for name, seeds in more.items() for seed in seeds]
    for name, seed in everything:
        if not only or name in only:
            yield name, seed, {**matrix["training"], **matrix["runs"][name], "seed": seed}


def bundle(run_id: str, config: str, log: Path, **options: Any) -> None:
    """One workflow of the bundle in a process of its own.

    Raises:
        SystemExit: naming the log, if it fails.
    """
    configs = ROOT / "bundles/topolora_sam_segmentation/configs"
    words = [word for key, value in options.items() for word in (f"--{key}", _text(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(configs / config), *words]
    with log.open("a") as file:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{run_id} failed, see {log}")


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | bool) else str(value)


def complete(folder: Path, options: dict[str, Any], evaluation: dict[str, Any]) -> None:
    """Train and evaluate one run unless that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "training.json").is_file():
        bundle("training", "train.yaml", folder / "training.log", **options, output_dir=folder)
    if not (folder / "evaluation/summary.json").is_file():
        shared = {key: options[key] for key in ("dataset_dir", "weights") if key in options}
        bundle("evaluating", "evaluate.yaml", folder / "evaluation.log", **shared, **evaluation, output_dir=folder)


def row(folders: list[Path]) -> dict[str, Any]:
    """A run's scores, averaged over its seeds, and what it was."""
    records = [json.loads((folder / "evaluation/summary.json").read_text()) for folder in folders]
    values = {name: [record["test"][name] for record in records] for name in SCORES}
    spread = {name: statistics.stdev(of) for name, of in values.items() if len(of) > 1}
    return {
        "seeds": [record["seed"] for record in records],
        "test": {name: statistics.mean(of) for name, of in values.items()},
        **({"standard_deviation": spread} if spread else {}),
        "seconds": round(statistics.mean(record["seconds"] for record in records), 1),
        "peak_memory_bytes": max(record["peak_memory_bytes"] for record in records),
        **{name: records[0][name] for name in SETTINGS if name in records[0]},
        "commands": [record["command"] for record in records],
        "each": [{"seed": record["seed"], **{name: record["test"][name] for name in SCORES}} for record in records],
    }


def collect(matrix: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    """Table of what is finished."""
    rows = {}
    for name in matrix["runs"]:
        folders = sorted(output_dir.glob(f"{name}_seed[0-9]*"))
        finished = [folder for folder in folders if (folder / "evaluation/summary.json").is_file()]
        if finished:
            rows[name] = row(finished)
    return rows


def show(rows: dict[str, Any]) -> None:
    from topolora_monai.cli.tables import new_table, show_table

    columns = ("trainable", "seeds", *SCORES, "minutes", "GB")
    table = new_table("run", *columns, numbers=columns)
    for name, one in rows.items():
        spread = one.get("standard_deviation", {})
        scores = [f"{one['test'][key]:.4f}" + (f" ± {spread[key]:.4f}" if key in spread else "") for key in SCORES]
        resources = f"{one['seconds'] / 60:.1f}", f"{one['peak_memory_bytes'] / 1e9:.1f}"
        table.add_row(name, f"{one['trainable']:,}", str(len(one["seeds"])), *scores, *resources)
    show_table(table)


def main() -> None:
    arguments = parse_arguments()
    sys.path.insert(0, str(ROOT))
    from topolora_monai.engines import write_json

    matrix = yaml.safe_load(arguments.matrix.read_text())
    output_dir = (arguments.output_dir or ROOT / "runs" / arguments.matrix.stem).absolute()
    if not arguments.table_only:
        for name, seed, options in tqdm(list(planned(matrix, arguments.only)), desc=arguments.matrix.stem):
            complete(output_dir / f"{name}_seed{seed}", options, matrix.get("evaluating", {}))
            if arguments.json:
                write_json({"note": matrix["note"], "runs": collect(matrix, output_dir)}, arguments.json)
    rows = collect(matrix, output_dir)
    show(rows)
    if arguments.json:
        write_json({"note": matrix["note"], "runs": rows}, arguments.json)


if __name__ == "__main__":
    main()
