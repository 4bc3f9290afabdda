"""Train and evaluate networks on data sets, and put the runs into tables: Markdown, LaTeX, pages of the documentation.

    python scripts/benchmark_matrix.py scripts/matrices/suite.yaml                # train, evaluate, resume
    python scripts/benchmark_matrix.py scripts/matrices/suite.yaml --table_only   # write the tables of what is there

A matrix is a YAML file, and every run one of its data sets by one of its rows by one seed.

- ``data``: by name ``title``, ``note``, ``training`` and ``evaluating`` (options of the bundle), ``parts`` (a table of
  its own for some groups of test images), ``by_group`` (one of all groups), ``pooled`` (whether the short table has
  Dice pooled over pixels) and ``speckle_of`` (a folder of SL-SSDD's masks, to which images are simulated).
- ``rows``: by name options of training, and beside them ``title``, ``recipe`` (of the packaged bundle), ``on`` (further
  options on single data sets), ``only_on`` (those that it is for; all without it) and a ``budget_minutes`` of its own.
- ``training`` and ``evaluating``: options that all runs share; a row's go before a data set's, and those before these.
- ``seeds`` of all, ``more_seeds`` of ``DATA/ROW`` patterns, ``skip``: patterns with the reason, which the table gives.
- ``budget_minutes``: what training may take of one core, start and validation included (of the wall clock with a GPU).
  A probe of some steps measures once for each data set and row how many fit; the schedule spans just these, in up to
  ``validations`` epochs with a validation each. Without a budget a run trains as its options say.
- ``scores`` of single images, ``title`` and ``note`` of the page, ``page`` and ``short``: where the tables go.

A run that fails does not stop the others. Finished runs are not repeated, killed ones go on from their last epoch:
give the same command again. Every run leaves a JSON file in ``results/NAME_OF_MATRIX``, from which the tables are made.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import json
import math
import multiprocessing
import os
import re
import runpy
import shutil
import statistics
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAVY = [
    *("torch", "torch.utils.tensorboard", "monai.bundle", "monai.engines", "monai.handlers", "ignite.handlers", "peft"),
    *("topolora_monai.engines", "topolora_monai.networks.baselines", "topolora_monai.reports", "fire"),
]
SCORES = ("dice", "iou", "cldice", "betti_0_error", "betti_1_error")
WITH_INTERVAL = ("dice", "cldice")
VALIDATIONS, VALIDATION_SHARE = 10, 0.25
WARM_UP, LEAST_STEPS, MOST_STEPS, PROBE_SECONDS = 2, 3, 10, 20.0
PROBE_CROPS = 64
LEVEL, RESAMPLES = 0.05, 2000
NOT_RUN = "not run yet"
START, END = "<!-- table by scripts/benchmark_matrix.py -->\n", "<!-- end of table -->\n"
OF_ROW = ("title", "recipe", "on", "only_on", "budget_minutes")
DESCRIBED = (
    *("dataset", "split_scheme", "annotator", "partial", "images", "network_name", "preset", "protocol"),
    *("weights", "pretrained", "base_sha256", "trainable", "image_size", "crop_size", "sampling", "batch_size"),
    *("learning_rate", "epochs", "hardware", "commit", "peak_memory_bytes", "seconds_per_image", "threshold_by"),
)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", type=Path)
    parser.add_argument("--output_dir", type=Path, help="folder of the runs, runs/NAME_OF_MATRIX when not given")
    parser.add_argument("--results", type=Path, help="folder of their JSON files, results/NAME_OF_MATRIX")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="runs whose DATA/ROW fits one")
    parser.add_argument("--seeds", nargs="+", type=int, help="these alone")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for each run")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then; the same command goes on")
    parser.add_argument("--budget_minutes", type=float, help="of a run, instead of the matrix's")
    parser.add_argument("--set", nargs="+", default=[], metavar="ID=VALUE", help="options of all trainings")
    parser.add_argument("--retry", action="store_true", help="also the runs that have failed")
    parser.add_argument("--table_only", action="store_true", help="train nothing; write the tables")
    return parser.parse_args(words)


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


class StoppedError(Exception):
    """The time is over, or a person has stopped it; the run goes on another time."""


class FailedError(Exception):
    """Why a run has no result, in a sentence."""


# ---- what there is to run


def read_matrix(path: Path) -> dict[str, Any]:
    """A matrix with its name.

    Raises:
        SystemExit: for what is not one.
    """
    matrix: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    absent = [key for key in ("data", "rows", "seeds") if not matrix.get(key)]
    named = [name for row in matrix.get("rows", {}).values() for key in ("on", "only_on") for name in row.get(key, ())]
    unknown = sorted({*named} - {*matrix.get("data", {})})
    if absent or unknown:
        raise SystemExit(f"{path}: {', '.join(absent)} missing" if absent else f"{path}: no data are called {unknown}")
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
    own = {key: value for key, value in row.items() if key not in OF_ROW} | row.get("on", {}).get(run.data, {})
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


def simulate(masks: Path, root: Path) -> None:
    """SL-SSDD's masks with simulated images, since SSDD's are for whoever has them: sea dark, land bright, one look."""
    import numpy as np
    from PIL import Image

    from topolora_monai.io.atomic import folder_beside

    root.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(root) as beside:
        (beside / "JPEGImages").mkdir()
        for part in ("train", "test"):
            shutil.copytree(masks / part, beside / part)
        for path in sorted(beside.glob("t*/*.png")):
            sea = np.asarray(Image.open(path)) > 0
            looks = np.random.default_rng(int(path.stem)).gamma(1.0, size=sea.shape)
            amplitude = np.clip(255 * np.sqrt(np.where(sea, 0.02, 0.2) * looks), 0, 255).astype(np.uint8)
            Image.fromarray(amplitude).save(beside / "JPEGImages" / f"{path.stem}.jpg")
        beside.rename(root)


# ---- one run, in processes of its own


def bundle_words(run_id: str, files: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """What follows ``python -m monai.bundle``."""
    config = files[0] if len(files) == 1 else json.dumps(list(files))
    given = [word for key, value in options.items() for word in (f"--{key}", _text(value))]
    return ["run", run_id, "--config_file", config, *given]


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict | bool) else str(value)


def workflow(words: Sequence[str]) -> None:
    """``python -m monai.bundle`` in this process."""
    sys.argv = ["monai.bundle", *words]
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def probe(files: Sequence[str], options: Mapping[str, Any], path: str) -> None:
    """Measure what a step and a validation of a training take, and write that to a file."""
    import torch
    from ignite.engine import Events
    from monai.bundle import ConfigWorkflow

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    begun = clock() if torch.cuda.is_available() else 0.0
    crops = f"$-(-{PROBE_CROPS} // len(@training_items))"  # of each image, in batches of up to five
    short = {"epochs": 1, "val_interval": 1, "crops_per_image": crops, "tracker#trackers": []}
    with tempfile.TemporaryDirectory() as scratch:
        settings = {**options, **short, "output_dir": scratch}
        flow = ConfigWorkflow(config_file=list(files), workflow_type="train", logging_file=False, **settings)
        flow.initialize()
        parsed = flow.parser.get_parsed_content
        trainer, evaluator = parsed("train#trainer"), parsed("validate#evaluator")
        images = {split: len(parsed(f"{split}_items")) for split in ("training", "validation")}
        startup, times, looked_at = clock() - begun, [], []

        def step_done(engine: Any) -> None:
            times.append(clock())
            timed = len(times) - WARM_UP
            if timed >= MOST_STEPS or (timed >= LEAST_STEPS and times[-1] - times[WARM_UP - 1] > PROBE_SECONDS):
                engine.terminate(skip_completed=True)

        def image_done(engine: Any) -> None:
            looked_at.append(clock())
            if len(looked_at) == min(WARM_UP + 1, images["validation"]):
                engine.terminate(skip_completed=True)

        trainer.add_event_handler(Events.ITERATION_COMPLETED, step_done)
        trainer.run()
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, image_done)
        before = clock()
        evaluator.run()
        measured = {
            "step_seconds": (times[-1] - times[WARM_UP - 1]) / (len(times) - WARM_UP),
            "validation_seconds": (looked_at[-1] - before) / len(looked_at) * images["validation"],
            "startup_seconds": startup,
            "batch_size": parsed("batch_size"),
            "images": images["training"],
        }
        flow.finalize()
    _write_json(measured, Path(path))


def fitted(measured: Mapping[str, Any], budget_minutes: float, validations: int = VALIDATIONS) -> dict[str, int]:
    """Options of a training that fills its budget.

    Raises:
        FailedError: if not even a step between two validations fits.
    """
    seconds = 60 * budget_minutes - measured["startup_seconds"]
    most = VALIDATION_SHARE * seconds / max(measured["validation_seconds"], 1e-9)
    epochs = max(1, min(validations, math.floor(most)))
    steps = int((seconds - epochs * measured["validation_seconds"]) / measured["step_seconds"])
    if steps < epochs:
        told = ", ".join(f"{what} {measured[f'{what}_seconds']:.1f} s" for what in ("startup", "step", "validation"))
        raise FailedError(f"nothing can be learnt in {budget_minutes:g} minutes: {told}")
    items = steps // epochs * measured["batch_size"]
    crops = math.ceil(items / measured["images"])
    return {"epochs": epochs, "val_interval": 1, "crops_per_image": crops, "train#sampler#items": items}


class Bench:
    """Where and how the runs of a matrix are done.

    Args:
        matrix: as :func:`read_matrix` gives it.
        arguments: of the command line.
    """

    def __init__(self, matrix: Mapping[str, Any], arguments: argparse.Namespace) -> None:
        self.matrix = matrix
        self.output_dir: Path = arguments.output_dir or Path("runs") / matrix["name"]
        self.results: Path = arguments.results or Path("results") / matrix["name"]
        self.asked_budget: float | None = arguments.budget_minutes
        self.given = {name: yaml.safe_load(value) for name, value in (one.split("=", 1) for one in arguments.set)}
        self.threads, self.retry = arguments.threads, arguments.retry
        self.deadline = time.monotonic() + 60 * arguments.minutes

    def budget(self, run: Run) -> float | None:
        """Minutes that a training may take; a row's own go before the matrix's."""
        of_row = self.matrix["rows"][run.row].get("budget_minutes")
        found: float | None = self.asked_budget or of_row or self.matrix.get("budget_minutes")
        return found

    def complete(self, run: Run) -> None:
        """Do what is left of a run and write its file; one that another process is at is left to that."""
        from filelock import FileLock, Timeout

        before = read_record(self.results, run)
        if before and ("test" in before or ("failed" in before and not self.retry)):
            return
        folder = self.output_dir / run.name
        folder.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(StoppedError, Timeout),
            FileLock(folder / ".suite.lock", timeout=0, thread_local=False),
        ):
            reason = reason_to_skip(self.matrix, run)
            if reason:
                self._write(run, {"missing": reason})
                return
            try:
                self._write(run, self._completed(run, folder))
            except StoppedError:
                raise
            except Exception as error:  # the others are run all the same
                what = "" if isinstance(error, FailedError) else f"{type(error).__name__}: "
                self._write(run, {"failed": run_path(f"{what}{error}")})

    def _completed(self, run: Run, folder: Path) -> dict[str, Any]:
        from topolora_monai.packaged import recipe_files

        data, row = self.matrix["data"][run.data], self.matrix["rows"][run.row]
        options = training_options(self.matrix, run) | self.given
        files = recipe_files(*([row["recipe"]] if "recipe" in row else []))
        self._simulated(data, options)
        if not (folder / "training.json").is_file():
            if self.budget(run):
                options |= self._fitted(run, files, options)
            words = bundle_words("training", files, {**options, "output_dir": folder})
            self._process(folder, "training", workflow, words)
        if not (folder / "evaluation/summary.json").is_file():
            shared = {key: options[key] for key in ("dataset_dir", "weights") if key in options}
            shared |= {**self.matrix.get("evaluating", {}), **data.get("evaluating", {}), "output_dir": folder}
            config = [str(Path(files[0]).with_name("evaluate.yaml"))]
            self._process(folder, "evaluating", workflow, bundle_words("evaluating", config, shared))
        return self._described(run, folder)

    def _simulated(self, data: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        from filelock import FileLock

        if "speckle_of" not in data:
            return
        masks, root = Path(data["speckle_of"]), Path(options["dataset_dir"])
        if not masks.is_dir():
            raise FailedError(f"data not to be had: no folder {masks}")
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{root}.lock"):
            if not root.exists():
                simulate(masks, root)

    def _fitted(self, run: Run, files: Sequence[str], options: Mapping[str, Any]) -> dict[str, int]:
        """The same for every seed of a row on a data set, and whenever the run is taken up."""
        from filelock import FileLock

        path = self.output_dir / "probes" / f"{run.data}_{run.row}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                self._process(self.output_dir / run.name, "probe", probe, files, dict(options), str(path))
            measured = json.loads(path.read_text())
            kept = measured.get("settings", {})
            budget = self.budget(run) or 0.0
            if kept.get("budget_minutes") != budget:
                count = self.matrix.get("validations", VALIDATIONS)
                kept = {"budget_minutes": budget, "options": fitted(measured, budget, count)}
                _write_json(measured | {"settings": kept}, path)
        return dict(kept["options"])

    def _process(self, folder: Path, what: str, target: Callable[..., None], *arguments: Any) -> None:
        """Run a function in a process of its own, within the time there is.

        Raises:
            StoppedError: if the time is over before.
            FailedError: if it fails, with the last that it said.
        """
        log = folder / f"{what}.log"
        place = str(Path.cwd()), str(folder)
        process = context().Process(target=_child, args=(target, arguments, *place, what, self.threads))
        if time.monotonic() >= self.deadline:
            raise StoppedError
        process.start()
        process.join(None if math.isinf(self.deadline) else max(0.0, self.deadline - time.monotonic()))
        if process.exitcode is None:
            process.terminate()
            process.join()
            raise StoppedError
        if process.exitcode == 130:  # Ctrl-C
            raise StoppedError
        if process.exitcode:
            by = f", by signal {-process.exitcode}" if process.exitcode < 0 else ""
            raise FailedError(
                f"{what} ended with status {process.exitcode}{by}: {_last_words(log)}; see {run_path(log)}"
            )

    def _described(self, run: Run, folder: Path) -> dict[str, Any]:
        """What a run was and gave."""
        summary = json.loads((folder / "evaluation/summary.json").read_text())
        probed = self.output_dir / "probes" / f"{run.data}_{run.row}.json"
        test = {name: value for name, value in summary["test"].items() if name != "classes"}
        return {
            **{name: summary[name] for name in DESCRIBED if name in summary},
            "best_epoch": _best_epoch(folder),
            "budget_minutes": self.budget(run),
            "processor_seconds": json.loads((folder / "processor_seconds.json").read_text()),
            **({"probe": json.loads(probed.read_text())} if self.budget(run) and probed.is_file() else {}),
            "command": self._as_typed(summary["command"]),
            "evaluation_command": self._as_typed(summary["evaluation_command"]),
            "validation": {"dice": summary["validation"]["dice"]},
            "test": test,
            "per_image": _per_image(folder / "evaluation/per_image.csv", self.matrix.get("scores", SCORES)),
        }

    def _as_typed(self, command: str) -> str:
        """A command as one would type it in the root of the repository, without the places it had on one machine."""
        return command.replace(f"{ROOT}/", "").replace(str(self.output_dir), f"runs/{self.matrix['name']}")

    def _write(self, run: Run, record: Mapping[str, Any]) -> None:
        """Put a run on file, and say so."""
        origin = {}
        if "test" not in record:
            from topolora_monai.engines import provenance

            origin = {key: provenance()[key] for key in ("commit", "hardware")}
        record = {**run._asdict(), **origin, **record}
        self.results.mkdir(parents=True, exist_ok=True)
        _write_json(record, self.results / f"{run.name}.json")
        said = next((f"{key}: {record[key]}" for key in ("missing", "failed") if key in record), None)
        print(f"{run.name}: {said or 'Dice {dice:.4f}'.format(**record['test'])}", flush=True)


@functools.cache
def context() -> Any:
    """Where processes begin with the heavy libraries loaded, if the system can do that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(HEAVY)
    return found


def _child(
    target: Callable[..., None], arguments: Sequence[Any], cwd: str, folder: str, what: str, threads: int
) -> None:
    """Do something here, with a log of its own; end when the process that asked for it is gone."""
    os.chdir(cwd)  # the server's may be another
    with Path(folder, f"{what}.log").open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    import torch

    torch.set_num_threads(threads)
    multiprocessing.set_start_method(None, force=True)  # workers of the data loaders start as they always do
    over, ended = multiprocessing.Pipe(duplex=False)
    watch = threading.Thread(target=_watch, args=(Path(folder), what, over), daemon=True)
    watch.start()
    try:
        target(*arguments)
    except SystemExit:
        raise
    except BaseException:  # what the interpreter does with it, which the package replaces by a sentence
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        ended.close()
        watch.join()


def _watch(folder: Path, what: str, over: Connection) -> None:
    """Note every second what the processor has taken, which also a killed process has then told."""
    path = folder / "processor_seconds.json"
    noted: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    before, parent = noted.get(what, 0.0), multiprocessing.parent_process()
    ready: list[Any] = []
    while over not in ready:
        ready = wait([over, parent.sentinel] if parent else [over], 1.0)
        if parent and parent.sentinel in ready:
            os._exit(1)
        used = os.times()
        noted[what] = round(before + used.user + used.system + used.children_user + used.children_system, 1)
        _write_json(noted, path)


def _write_json(record: Mapping[str, Any], path: Path) -> None:
    """Beside and renamed, by this alone since the package's own takes seconds to import; one line a key."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in record.items()]
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    beside.replace(path)


def _last_words(log: Path) -> str:
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines or ["nothing"]
    return run_path(said[-1])[:300]


def run_path(text: Any) -> str:
    """Without the folder that everything lies in on this machine."""
    return str(text).replace(f"{Path.cwd()}/", "").replace(f"{ROOT}/", "")


def _best_epoch(folder: Path) -> int | None:
    epoch = json.loads((folder / "training.json").read_text())["validation"].get("epoch")
    return None if epoch is None else int(epoch)


def _per_image(path: Path, scores: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the table of test images, in order of their names."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["name"])
    texts = [key for key in ("name", "group") if key in rows[0]]
    numbers = {score: [_number(row[score]) for row in rows] for score in scores if score in rows[0]}
    return {key: [row[key] for row in rows] for key in texts} | numbers


def _number(text: str) -> float | None:
    value = float(text or "nan")
    return round(value, 4) if math.isfinite(value) else None  # which JSON lacks


# ---- tables


class Cell(NamedTuple):
    """What stands in a table; ``mark`` is ``"best"``, ``"like best"`` or nothing."""

    text: str
    mark: str = ""


class Table(NamedTuple):
    """A table with what stands above it."""

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def begun(self) -> bool:
        """Whether there is more to say than that nothing has been run."""
        return any(cell.text not in ("", NOT_RUN) for row in self.rows for cell in row[1:])


class Measured:
    """Scores of a row on a data set, or on some groups of its images, over seeds.

    Args:
        records: of its seeds.
        groups: of the images that count; None for all.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], groups: Sequence[str] | None = None) -> None:
        import numpy as np

        self.records = records
        tables = [record["per_image"] for record in records]
        if any(table["name"] != tables[0]["name"] for table in tables):
            raise SystemExit(f"{records[0]['data']}/{records[0]['row']}: its seeds were scored on different images")
        kept = [number for number, _ in enumerate(tables[0]["name"])]
        if groups is not None:
            kept = [number for number in kept if tables[0]["group"][number] in groups]
        self.scores = {
            score: np.array([table[score] for table in tables], float)[:, kept]
            for score in tables[0]
            if score not in ("name", "group")
        }

    def of_images(self, score: str) -> Any:
        """A value of each image, averaged over seeds."""
        return self.scores[score].mean(axis=0)

    def value(self, score: str) -> tuple[float, float | None]:
        """Mean over images and seeds, and the deviation over seeds where there are several."""
        if score == "pooled dice":
            return _mean_and_deviation([record["test"]["dice"] for record in self.records])
        import numpy as np

        return _mean_and_deviation(np.nanmean(self.scores[score], axis=1).tolist())

    def text(self, score: str) -> str:
        """Mean with deviation over seeds and, of some scores, the interval over images."""
        from topolora_monai.metrics import bootstrap_interval

        digits = 1 if score.endswith("error") else 3
        mean, deviation = self.value(score)
        text = f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")
        if score in WITH_INTERVAL and self.of_images(score).size > 1:
            interval = bootstrap_interval(self.of_images(score), resamples=RESAMPLES)
            text += f" ({interval.low:.{digits}f} to {interval.high:.{digits}f})"
        return text


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def read_record(results: Path, run: Run) -> dict[str, Any] | None:
    path = results / f"{run.name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


class Results:
    """What is on file of a matrix.

    Args:
        matrix: as :func:`read_matrix` gives it.
        folder: of the runs' files.
    """

    def __init__(self, matrix: Mapping[str, Any], folder: Path) -> None:
        self.matrix = matrix
        runs = list(planned(matrix))
        self.records = {run: read_record(folder, run) for run in runs}

    def of(self, data: str, row: str) -> list[dict[str, Any]]:
        """Finished runs of a cell by seed."""
        return [
            record
            for run, record in sorted(self.records.items(), key=lambda one: one[0].seed)
            if record and "test" in record and run[:2] == (data, row)
        ]

    def rows(self, data: str) -> list[str]:
        """Those that are for a data set."""
        return list(dict.fromkeys(run.row for run in self.records if run.data == data))

    def why_missing(self, data: str, row: str) -> str:
        """Of a cell without a finished run."""
        found = [record for run, record in self.records.items() if record and run[:2] == (data, row)]
        said = [record.get("missing") or f"failed: {record['failed']}" for record in found]
        skipped = [str(why) for fits, why in self.matrix.get("skip", {}).items() if fnmatch(f"{data}/{row}", fits)]
        return next(iter([*skipped, *said]), NOT_RUN)

    def title(self, row: str) -> str:
        """What a row is called."""
        return str(self.matrix["rows"][row].get("title", row))

    def tables(self, results_at: str = "") -> Iterator[Table]:
        """A table of every data set, and of each part of one that is reported apart."""
        for data, about in self.matrix["data"].items():
            title, note = about.get("title", data), about.get("note", "")
            if not about.get("parts"):
                yield self._table(data, None, title, note, results_at)
            for part, groups in about.get("parts", {}).items():
                yield self._table(data, groups, f"{title}, {part}", note, results_at)
            yield from self._by_group(data, title)

    def _table(self, data: str, groups: Sequence[str] | None, title: str, note: str, results_at: str) -> Table:
        from topolora_monai.reports.html.scores import lower_is_better, score_title

        scores = [*([] if groups else ["pooled dice"]), *self.matrix.get("scores", SCORES)]
        measured = {row: Measured(self.of(data, row), groups) for row in self.rows(data) if self.of(data, row)}
        marks = {score: marked(measured, score, lower_is_better(score)) for score in scores}
        head = ["network", "seeds", *("Dice, pooled" if s == "pooled dice" else score_title(s) for s in scores)]
        rows = []
        for row in self.rows(data):
            if row not in measured:
                reason = Cell(self.why_missing(data, row))
                rows.append([Cell(self.title(row)), Cell(""), reason, *[Cell("")] * (len(scores) + 3)])
                continue
            records = measured[row].records
            seeds = ", ".join(f"{one['seed']}" for one in records)
            if results_at:
                files = [f"{results_at}/{Run(data, row, one['seed']).name}.json" for one in records]
                seeds = ", ".join(f"[{one['seed']}]({file})" for one, file in zip(records, files, strict=True))
            cells = [Cell(measured[row].text(score), marks[score].get(row, "")) for score in scores]
            took = statistics.fmean(one["processor_seconds"]["training"] for one in records) / 60
            best = ", ".join(f"{one['best_epoch']} of {one['epochs']}" for one in records)
            seconds = statistics.fmean(one["seconds_per_image"] or math.nan for one in records)
            costs = [f"{records[0]['trainable']:,}", f"{seconds:.2f}", f"{took:.0f}", best]
            rows.append([Cell(self.title(row)), Cell(seeds), *cells, *map(Cell, costs)])
        return Table(title, note, [*head, "trained", "s an image", "minutes", "best epoch"], rows)

    def short(self) -> Table | None:
        """Dice and clDice of every row that has any, a column for each data set or part; None where there is none."""
        columns = [
            (about.get("title", data) + (f", {part}" if part else ""), data, groups)
            for data, about in self.matrix["data"].items()
            for part, groups in (about.get("parts") or {"": None}).items()
            if any(self.of(data, row) for row in self.rows(data))
        ]
        return self._pairs("", columns) if columns else None

    def _by_group(self, data: str, title: str) -> Iterator[Table]:
        found = [record for row in self.rows(data) for record in self.of(data, row)]
        groups = dict.fromkeys(group for record in found for group in record["per_image"].get("group", ()))
        if self.matrix["data"][data].get("by_group") and groups:
            yield self._pairs(f"{title}, by group", [(group, data, [group]) for group in groups])

    def _pairs(self, title: str, columns: Sequence[tuple[str, str, Sequence[str] | None]]) -> Table:
        """Dice and clDice in one cell; the best Dice of a column is marked."""
        cells: dict[str, list[Cell]] = {row: [] for row in self.matrix["rows"]}
        for _, data, groups in columns:
            dice = "pooled dice" if self.matrix["data"][data].get("pooled") else "dice"
            measured = {row: Measured(self.of(data, row), groups) for row in self.rows(data) if self.of(data, row)}
            best = max((one.value(dice)[0] for one in measured.values()), default=math.nan)
            for row, of_row in cells.items():
                values = [measured[row].value(score)[0] for score in (dice, "cldice")] if row in measured else []
                text = " / ".join(f"{value:.3f}" for value in values)
                of_row.append(Cell(text or "-", "best" if values and values[0] == best else ""))
        rows = []
        for row, of_row in cells.items():
            known = [record for _, data, _ in columns for record in self.of(data, row)]
            if known:
                rows.append([Cell(self.title(row)), Cell(f"{known[0]['trainable']:,}"), *of_row])
        return Table(title, "Dice / clDice.", ["network", "trained", *(head for head, *_ in columns)], rows)


def marked(measured: Mapping[str, Measured], score: str, low: bool) -> dict[str, str]:
    """The best row of a column, and those that the paired test over images does not tell apart from it."""
    values = {row: one.value(score)[0] for row, one in measured.items()}
    values = {row: value for row, value in values.items() if not math.isnan(value)}
    if len(values) < 2:
        return {}
    best = (min if low else max)(values, key=lambda row: values[row])
    marks = {best: "best"}
    if score == "pooled dice":
        return marks
    from topolora_monai.metrics import paired_test

    of_best = measured[best].of_images(score)
    for row in values.keys() - {best}:
        other = measured[row].of_images(score)
        if other.shape == of_best.shape and not paired_test(of_best, other, resamples=1).p_value < LEVEL:
            marks[row] = "like best"
    return marks


def markdown(table: Table) -> str:
    """As Markdown, without its title."""
    around = {"best": "**{}**", "like best": "_{}_", "": "{}"}
    lines = [f"| {' | '.join(table.head)} |", "|---" * len(table.head) + "|"]
    lines += [f"| {' | '.join(around[cell.mark].format(cell.text) for cell in row)} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """As a tabular of LaTeX's booktabs."""
    around = {"best": r"\textbf{%s}", "like best": r"\emph{%s}", "": "%s"}
    lines = [rf"% {table.title}", rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(_tex, table.head)) + r" \\", r"\midrule"]
    lines += [" & ".join(around[cell.mark] % _tex(cell.text) for cell in row) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    return text.replace("±", r"$\pm$")


def page(results: Results, matrix_path: str, results_at: str) -> str:
    """Everything as a page of Markdown.

    Args:
        results: what is on file.
        matrix_path: of the matrix, from the root of the tree.
        results_at: folder of the runs' files, from the page.
    """
    matrix = results.matrix
    done = [record for record in results.records.values() if record and "test" in record]
    budget = sorted({record["budget_minutes"] for record in done if record["budget_minutes"]})
    parts = [f"# {matrix.get('title', matrix['name'])}\n", _wrapped(matrix.get("note", ""))]
    parts.append(
        f"{len(done)} of {len(results.records)} runs are on file"
        + (f", trained for {' or '.join(f'{one:g}' for one in budget)} minutes each" if budget else "")
        + f". To go on with them, and to write this page anew:\n\n"
        f"```text\npython scripts/benchmark_matrix.py {matrix_path}\n"
        f"python scripts/benchmark_matrix.py {matrix_path} --table_only\n```\n"
    )
    parts.append(LEGEND)
    for table in results.tables(results_at):
        shown = markdown(table) if table.begun else "No run is on file yet.\n"
        parts += [f"## {table.title}\n", _wrapped(table.note), shown]
    parts += ["## Hardware and commands\n", *_origins(done)]
    return "\n".join(part for part in parts if part)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, break_on_hyphens=False) + "\n" if text else ""


LEGEND = """\
Scores are means over test images, averaged over seeds, ± their deviation between seeds; "Dice, pooled" counts the
pixels of all images together. In parentheses the bootstrap 95 % interval over images. **Bold** is the best of a column,
_italic_ what Wilcoxon's signed-rank test on the same images does not tell apart from it (p >= 0.05; it knows nothing of
seeds). Of errors, less is better. "Trained" counts parameters that train, "s an image" is the network's answer to one
test image (seconds of the processor, all cores added up; of the wall clock on a GPU), "minutes" what the processor took
for training, "best epoch" where validation was best. Each seed leads to the file of its run, with command, commit and
hardware.
"""


def _origins(done: Sequence[Mapping[str, Any]]) -> list[str]:
    if not done:
        return ["No run is on file yet.\n"]
    hardware = sorted({str(record["hardware"]) for record in done})
    commands = [record["command"] for record in done if record["seed"] == min(r["seed"] for r in done)]
    told = ["Trained on:\n\n" + "\n".join(f"- {one}" for one in hardware) + "\n"]
    return [*told, "```text\n" + "\n".join(commands) + "\n```\n"]


def write_tables(matrix: Mapping[str, Any], results_dir: Path, root: Path, matrix_path: str) -> dict[Path, str]:
    """Files with the tables of what is on file, and their content: the page, LaTeX, and the short form."""
    results = Results(matrix, results_dir)
    where = root / matrix["page"] if "page" in matrix else results_dir / "table.md"
    results_at = Path(os.path.relpath(results_dir, where.parent)).as_posix()
    files = {
        where: page(results, matrix_path, results_at),
    }
    if latex_tables := [latex(table) for table in results.tables() if table.begun]:
        files[results_dir / "tables.tex"] = "\n".join(latex_tables)
    if "short" in matrix:
        short = root / matrix["short"]
        before, _, rest = short.read_text(encoding="utf-8").partition(START)
        _, _, after = rest.partition(END)
        table = results.short()
        shown = markdown(table) if table else "No run of the suite is on file yet.\n"
        files[short] = f"{before}{START}{shown}{END}{after}"
    return files


def main(words: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(words)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    matrix = read_matrix(arguments.matrix)
    bench = Bench(matrix, arguments)
    if not arguments.table_only:
        runs = [
            run
            for run in planned(matrix)
            if any(fnmatch(run.cell, pattern) for pattern in arguments.only)
            and (arguments.seeds is None or run.seed in arguments.seeds)
        ]
        with ThreadPoolExecutor(arguments.jobs) as pool:  # which none may need that forks
            list((map if arguments.jobs == 1 else pool.map)(bench.complete, runs))
        for table in Results(matrix, bench.results).tables():
            print(f"\n{table.title}\n{markdown(table)}")
        return
    for path, text in write_tables(matrix, bench.results, ROOT, run_path(arguments.matrix)).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
