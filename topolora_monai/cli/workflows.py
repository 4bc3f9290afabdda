"""``topolora train``, ``evaluate``, ``predict`` and ``bundle``: the packaged bundle's workflows, with its own ids."""

import argparse
import contextlib
import logging
import logging.config
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from topolora_monai.cli.settings import settings_help, split_words
from topolora_monai.errors import INTERRUPTED, ConfigError, OutputError
from topolora_monai.packaged import RECIPES, bundle_folder, recipe_files

_ADAPTER = "adapter.safetensors"
_LOUD = ("monai", "ignite", "topolora_monai.weights")
"""Parts that say at the level of news what only their makers want to know."""


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    _add(
        commands,
        "train",
        _train,
        "train.yaml",
        "DATASET_NAME [DATASET_DIR] [--recipe NAME] [--verbose] [--ID VALUE ...]",
        "adapt a network to a data set",
        "DATASET_NAME is one that `topolora data list` shows, `folder` for images of your own with their masks, or\n"
        "synthetic_vessels for a try-out; DATASET_DIR is where it lies. Results go to runs/DATASET_NAME, or to\n"
        "--output_dir. The same command given again takes up a run that was stopped.\n\n"
        f"--recipe NAME adds what differs in {', '.join(RECIPES)}; several are parted by a comma.\n"
        "--verbose shows everything that the libraries say.\n\n"
        "What one says in a sentence is an id below; a setting of a part is given by its place, as in\n"
        "--adaptation#config#lora#r 16. `topolora bundle OUT` writes the files that hold them all.",
    )
    _add(
        commands,
        "evaluate",
        _evaluate,
        "evaluate.yaml",
        "RUN [--verbose] [--ID VALUE ...]",
        "score a run on its test images",
        "RUN is the folder of a run. Its data and its base checkpoint are those it was trained with, where they are\n"
        "still there; else give --dataset_dir and --weights.",
    )
    _add(
        commands,
        "predict",
        _predict,
        "inference.yaml",
        "INPUT --adapter RUN_FILE_OR_NAME [--weights CHECKPOINT] [--out DIR] [--verbose] [--ID VALUE ...]",
        "segment images with a trained adapter",
        "INPUT is a picture, a volume or a scene, a folder of them, or a glob in quotes. --adapter is a run's folder,\n"
        "an adapter file, or a name that `topolora adapter list` shows; --out the folder for masks (predictions). The\n"
        "base checkpoint is found by what the adapter says of it; else give --weights.",
    )
    bundle = commands.add_parser("bundle", help="write the MONAI bundle behind these commands, to change it")
    bundle.add_argument("out", type=Path, metavar="OUT", help="folder of the new bundle")
    bundle.set_defaults(run=_bundle)


def _add(
    commands: Any,
    name: str,
    run: Callable[[list[str], dict[str, Any]], int],
    config: str,
    usage: str,
    summary: str,
    description: str,
) -> None:
    # Ids are the configuration's to know, so argparse is kept from looking for options among the words.
    parser = commands.add_parser(name, help=summary, prefix_chars="\0", add_help=False)
    parser.add_argument("words", nargs="*")

    def started(options: argparse.Namespace) -> int:
        usage_line = f"usage: topolora {name} {usage}\n"
        if {"-h", "--help"} & {*options.words}:
            print(f"{usage_line}\n{summary}\n\n{description}\n")
            print(settings_help(bundle_folder() / "configs" / config))
            return 0
        alone, settings = split_words(options.words)
        try:
            return run(alone, settings)
        except _UsageError as error:
            print(f"{usage_line}error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            output = sys.modules.get("topolora_monai.engines.output")
            if output is None:  # nothing has begun
                raise
            print(output.stopped(), file=sys.stderr)
            return INTERRUPTED

    parser.set_defaults(run=started)


class _UsageError(Exception):
    """Words that do not make up a command."""


def _words(alone: list[str], *names: str, optional: int = 0) -> list[str | None]:
    """Words that stand alone, by what they are; None for those left out."""
    if len(alone) > len(names):
        raise _UsageError(f"more words than {' and '.join(names)}: {' '.join(alone[len(names) :])}")
    if len(alone) < len(names) - optional:
        raise _UsageError(f"{names[len(alone)]} is missing")
    return [*alone, *[None] * (len(names) - len(alone))]


def _train(alone: list[str], settings: dict[str, Any]) -> int:
    name, folder = _words(alone, "DATASET_NAME", "DATASET_DIR", optional=1)
    recipes = settings.pop("recipe", ())
    files = recipe_files(*([recipes] if isinstance(recipes, str) else recipes))
    given = {"dataset_name": name, "output_dir": f"runs/{name}"} | ({"dataset_dir": folder} if folder else {})
    with _workflow("training", files, _joined(given, settings), "train") as parser:
        run = Path(parser.get_parsed_content("output_dir"))
        _say_what_begins(parser)
    from topolora_monai.engines import read_json  # noqa: PLC0415

    best = read_json(run / "training.json", "train again")["validation"]
    dice = f": Dice {best['dice']:.3f} on validation, after epoch {best['epoch']:.0f}" if best else ""
    print(f"trained{dice}")
    _print_table({"adapter": run / _ADAPTER, "curves": f"tensorboard --logdir {run / 'tensorboard'}"})
    print("next:")
    print(f"  topolora evaluate {run}")
    print(f"  topolora predict IMAGES --adapter {run}")
    return 0


def _say_what_begins(parser: Any) -> None:
    data, adaptation = parser.get_parsed_content("data"), parser.get_parsed_content("adaptation")
    counts = {split: len(parser.get_parsed_content(f"{split}_items")) for split in ("training", "validation")}
    print(
        f"{data.name}: {counts['training']} images to learn from, {counts['validation']} for validation,"
        f" {len(data.items('test'))} for test\n"
        f"{adaptation.base_name}: {adaptation.trainable_count / 1e6:.1f} of {adaptation.total_count / 1e6:.1f} million"
        f" parameters train, on {parser.get_parsed_content('device')}\n"
        "Ctrl-C is safe: the same command takes the run up again",
        flush=True,
    )


def _evaluate(alone: list[str], settings: dict[str, Any]) -> int:
    (run,) = _words(alone, "RUN")
    files = [str(bundle_folder() / "configs" / "evaluate.yaml")]
    with _workflow("evaluating", files, _joined({"output_dir": _run_folder(str(run))}, settings), "infer"):
        pass
    _print_table({"pictures": Path(str(run), "evaluation", "pictures")})
    print("next:")
    print(f"  topolora report {run} --out report")
    return 0


def _predict(alone: list[str], settings: dict[str, Any]) -> int:
    (source,) = _words(alone, "INPUT")
    if "adapter" not in settings:
        raise _UsageError("--adapter is missing")
    if Path(str(settings["adapter"])).is_dir():
        settings["adapter"] = str(Path(_run_folder(str(settings["adapter"])), _ADAPTER))
    if "out" in settings:
        settings = {"output_dir": str(settings["out"])} | {k: v for k, v in settings.items() if k != "out"}
    files = [str(bundle_folder() / "configs" / "inference.yaml")]
    with _workflow("inferring", files, _joined({"dataset_dir": source}, settings), "infer") as parser:
        out = Path(parser.get_parsed_content("output_dir"))
        count = len({item["image"] for item in parser.get_parsed_content("items")})
    print(f"{count} {'image' if count == 1 else 'images'} segmented: masks are in {out}")
    return 0


def _bundle(options: argparse.Namespace) -> int:
    out: Path = options.out
    if out.exists():
        raise OutputError("the new bundle's folder exists already", path=out, hint="choose another one")
    try:
        shutil.copytree(bundle_folder(), out, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise OutputError("cannot write the bundle", path=out, found=error.strerror or error) from error
    print(f"bundle written to {out}; docs/README.md there says what each file is for")
    print(f"  python -m monai.bundle run training --config_file {out / 'configs' / 'train.yaml'}")
    return 0


def _run_folder(folder: str) -> str:
    if not Path(folder, _ADAPTER).is_file():
        raise ConfigError(
            "not the folder of a run", path=folder, expected=_ADAPTER, hint="give what `topolora train` has written"
        )
    return folder


def _joined(given: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the words that stand alone, and those that were given by their ids."""
    twice = [name for name in given if name in settings and name != "output_dir"]
    if twice:
        raise _UsageError(f"--{twice[0]} is given twice, as {given[twice[0]]} and as {settings[twice[0]]}")
    return given | settings


@contextlib.contextmanager
def _workflow(run_id: str, files: list[str], settings: dict[str, Any], kind: str) -> Iterator[Any]:
    """Run one of the bundle's workflows as ``python -m monai.bundle run`` does, with the body before its first step."""
    verbose = settings.pop("verbose", False)
    from monai.bundle import create_workflow  # noqa: PLC0415 - takes seconds to import

    from topolora_monai.engines.output import plain_errors  # noqa: PLC0415

    if not verbose:
        settings = {"logging_file": False} | settings
        _hush(Path(files[0]).with_name("logging.conf"))
    with plain_errors():
        workflow = create_workflow(config_file=files, workflow_type=kind, run_id=run_id, **settings)
        yield workflow.parser
        workflow.run()
        workflow.finalize()


def _hush(logging_conf: Path) -> None:
    """Log as the bundle does, without the news of the libraries, and around progress bars."""
    from tqdm import tqdm  # noqa: PLC0415

    class AroundBars(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with contextlib.suppress(OSError):
                tqdm.write(self.format(record), file=sys.stderr)

    logging.config.fileConfig(logging_conf, disable_existing_loggers=False)
    logging.getLogger().handlers = [AroundBars()]
    for library in _LOUD:
        known = [name for name in logging.root.manager.loggerDict if name.startswith(f"{library}.")]
        for name in (library, *known):  # each of MONAI's has a level of its own
            logging.getLogger(name).setLevel(logging.ERROR if name.startswith("monai.bundle") else logging.WARNING)
    warnings.filterwarnings("ignore", message="parsing config_file")  # which is the package's own


def _print_table(places: dict[str, Any]) -> None:
    for what, place in places.items():
        print(f"  {what:10}{place}")
