"""Train and evaluate many runs through the bundle, and put them into one table.

    python scripts/benchmark_matrix.py scripts/matrices/drive_methods.yaml --json results/drive_methods.json

A matrix is a YAML file: ``training`` and ``evaluating`` hold options that all runs share, ``runs`` the options of each
by its name, ``seeds`` the seeds of all runs, ``more_seeds`` those that single runs have besides. Runs that are finished
are not repeated, one that was killed resumes: give the same command again. The table is written after every run.
Scores are those of ``scores``. With ``compare_to``, the name of a run, each row also has the bootstrap 95 % interval of
every score's mean over images, and its paired test against that run, both on the means of an image over seeds.
"""

import argparse
import csv
import dataclasses
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
TAKEN = "processor_seconds.json"
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
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, which share the processor's cores")
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


def bundle(run_id: str, config: str, log: Path, threads: int, **options: Any) -> float:
    """One workflow of the bundle in a process of its own; the processor's seconds that it took, of all cores.

    Raises:
        SystemExit: naming the log, if it fails.
    """
    configs = ROOT / "bundles/topolora_sam_segmentation/configs"
    words = [word for key, value in options.items() for word in (f"--{key}", _text(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(configs / config), *words]
    with log.open("a") as file:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{run_id} failed, see {log}")
    return round(usage.ru_utime + usage.ru_stime, 1)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | bool) else str(value)


def complete(folder: Path, options: dict[str, Any], evaluation: dict[str, Any], threads: int) -> None:
    """Train and evaluate one run unless that is done; what the processor took is kept beside."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = json.loads((folder / TAKEN).read_text()) if (folder / TAKEN).is_file() else {}
    if not (folder / "training.json").is_file():
        taken["training"] = taken.get("training", 0) + bundle(
            "training", "train.yaml", folder / "training.log", threads, **options, output_dir=folder
        )
    if not (folder / "evaluation/summary.json").is_file():
        shared = {key: options[key] for key in ("dataset_dir", "weights") if key in options}
        log = folder / "evaluation.log"
        taken["evaluating"] = bundle(
            "evaluating", "evaluate.yaml", log, threads, **shared, **evaluation, output_dir=folder
        )
    (folder / TAKEN).write_text(json.dumps(taken))


def row(folders: list[Path], scores: list[str]) -> dict[str, Any]:
    """A run's scores, averaged over its seeds, and what it was."""
    records = [json.loads((folder / "evaluation/summary.json").read_text()) for folder in folders]
    values = {name: [score_of(record, name) for record in records] for name in scores}
    spread = {name: statistics.stdev(of) for name, of in values.items() if len(of) > 1}
    return {
        "seeds": [record["seed"] for record in records],
        "validation": {"dice": statistics.mean(record["validation"]["dice"] for record in records)},
        "test": {name: statistics.mean(of) for name, of in values.items()},
        **({"standard_deviation": spread} if spread else {}),
        "seconds": round(statistics.mean(record["seconds"] for record in records), 1),
        "processor_seconds": [json.loads((f / TAKEN).read_text()) for f in folders if (f / TAKEN).is_file()],
        "peak_memory_bytes": max(record["peak_memory_bytes"] for record in records),
        **{name: records[0][name] for name in SETTINGS if name in records[0]},
        "commands": [as_typed(record["command"], folder) for record, folder in zip(records, folders, strict=True)],
        "each": [{"seed": record["seed"], **{name: record["test"][name] for name in scores}} for record in records],
    }


def score_of(record: dict[str, Any], name: str) -> float:
    """A score of a run's test images; NaN for one that is not defined, which JSON writes as null."""
    value = record["test"][name]
    return math.nan if value is None else value


def as_typed(command: str, folder: Path) -> str:
    """A command as one would type it in the root of the repository, without the places it had on one machine."""
    places = {str(folder): f"runs/{folder.parent.name}/{folder.name}"}
    words = [
        f"bundles/{word.rpartition('/bundles/')[2]}" if "/bundles/" in word else word for word in shlex.split(command)
    ]
    return shlex.join(places.get(word, word) for word in words)


def per_image(folders: list[Path], scores: list[str]) -> dict[str, Any]:
    """Of each score the values of all images, averaged over seeds; scores of the split alone are left out."""
    tables = []
    for folder in folders:
        with (folder / "evaluation/per_image.csv").open(newline="") as file:
            tables.append(sorted(csv.DictReader(file), key=lambda one: one["name"]))
    names = [[one["name"] for one in table] for table in tables]
    if any(these != names[0] for these in names):
        raise SystemExit(f"runs were scored on different images: {', '.join(map(str, folders))}")
    return {
        score: [statistics.mean(float(one[score]) for one in of_image) for of_image in zip(*tables, strict=True)]
        for score in scores
        if score in tables[0][0]
    }


def compared(values: dict[str, Any], reference: dict[str, Any] | None) -> dict[str, Any]:
    """Intervals of a run's scores, and its differences from the reference unless it is the reference."""
    from topolora_monai.metrics import bootstrap_interval, paired_test

    intervals = {score: dataclasses.asdict(bootstrap_interval(of)) for score, of in values.items()}
    if reference is None:
        return {"intervals": intervals}
    tests = {score: dataclasses.asdict(paired_test(of, reference[score])) for score, of in values.items()}
    return {"intervals": intervals, "against_reference": tests}


def collect(matrix: dict[str, Any], output_dir: Path) -> dict[str, Any]:
    """Table of what is finished."""
    scores, rows, values = matrix.get("scores", list(SCORES)), {}, {}
    for name in matrix["runs"]:
        folders = sorted(output_dir.glob(f"{name}_seed[0-9]*"))
        finished = [folder for folder in folders if (folder / "evaluation/summary.json").is_file()]
        if finished:
            rows[name] = row(finished, scores)
            values[name] = per_image(finished, scores) if "compare_to" in matrix else {}
    reference = matrix.get("compare_to")
    if reference in rows:
        for name, one in rows.items():
            one.update(compared(values[name], None if name == reference else values[reference]))
    return rows


def show(rows: dict[str, Any], scores: list[str]) -> None:
    from topolora_monai.cli.common import show_table

    columns, table = ("trainable", "seeds", *scores, "minutes", "GB"), []
    for name, one in rows.items():
        spread = one.get("standard_deviation", {})
        shown = [f"{one['test'][key]:.4f}" + (f" ± {spread[key]:.4f}" if key in spread else "") for key in scores]
        resources = f"{one['seconds'] / 60:.1f}", f"{one['peak_memory_bytes'] / 1e9:.1f}"
        table.append([name, f"{one['trainable']:,}", len(one["seeds"]), *shown, *resources])
    show_table(("run", *columns), table, numbers=columns)


def main() -> None:
    arguments = parse_arguments()
    sys.path.insert(0, str(ROOT))
    from topolora_monai.engines import write_json

    matrix = yaml.safe_load(arguments.matrix.read_text())
    output_dir = (arguments.output_dir or ROOT / "runs" / arguments.matrix.stem).absolute()
    if not arguments.table_only:
        runs = list(planned(matrix, arguments.only))
        threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            waiting = [
                pool.submit(complete, output_dir / f"{name}_seed{seed}", options, matrix.get("evaluating", {}), threads)
                for name, seed, options in runs
            ]
            for done in tqdm(as_completed(waiting), desc=arguments.matrix.stem, total=len(runs)):
                done.result()
                if arguments.json:
                    write_json({"note": matrix["note"], "runs": collect(matrix, output_dir)}, arguments.json)
    rows = collect(matrix, output_dir)
    show(rows, matrix.get("scores", list(SCORES)))
    if arguments.json:
        write_json({"note": matrix["note"], "runs": rows}, arguments.json)


if __name__ == "__main__":
    main()
