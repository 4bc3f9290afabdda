"""Runs of a matrix, each in processes of its own, within a budget."""

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
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import yaml

from matrix.plan import ROOT, SCORES, Run, read_record, reason_to_skip, run_path, training_options
from topolora_monai.errors import INTERRUPTED

HEAVY = [
    *("torch", "torch.utils.tensorboard", "monai.bundle", "monai.engines", "monai.handlers", "ignite.handlers", "peft"),
    *("topolora_monai.engines", "topolora_monai.networks.baselines", "topolora_monai.reports", "fire"),
]
VALIDATIONS, VALIDATION_SHARE = 10, 0.25
WARM_UP, LEAST_STEPS, MOST_STEPS, PROBE_SECONDS = 2, 3, 10, 20.0
PROBE_CROPS = 64
DESCRIBED = (
    *("dataset", "split_scheme", "annotator", "partial", "images", "network_name", "preset", "protocol"),
    *("weights", "pretrained", "base_sha256", "trainable", "image_size", "crop_size", "sampling", "batch_size"),
    *("learning_rate", "epochs", "hardware", "commit", "peak_memory_bytes", "seconds_per_image", "threshold_by"),
)


class StoppedError(Exception):
    """The time is over, or a person has stopped it; the run goes on another time."""


class FailedError(Exception):
    """Why a run has no result, in a sentence."""


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
        if process.exitcode == INTERRUPTED:
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
            **{name: _told(summary[name]) for name in DESCRIBED if name in summary},
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


def _told(value: Any) -> Any:
    """As it stands in a record: paths as in the root of the repository."""
    return run_path(value) if isinstance(value, str) else value


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
