"""Teach the current adapter what an annotator has drawn, and keep it only if it got better."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys

from topolora_monai.adapters import load_adapter, read_spec, save_adapter
from topolora_monai.adapters.files import build_as_stored, read_adapter_tensors
from topolora_monai.annotation.versions import AdapterVersion, AdapterVersions
from topolora_monai.data.benchmark import Modality, Splits
from topolora_monai.data.fields_of_view import with_computed_fov
from topolora_monai.data.items import Item, Split
from topolora_monai.engines import plain_errors, read_json, training_workflow
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io import LabelValues, numbered
from topolora_monai.metrics import PairedTest, PooledDice, paired_test
from topolora_monai.model.inferers import Precision
from topolora_monai.networks import SamSegmenter
from topolora_monai.transforms.intensity import PixelValues


@dataclass(frozen=True)
class TrainingSettings:
    """How to fine-tune; what is None is as the adapter was trained.

    Args:
        epochs: passes over the training images.
        crops_per_image: of each image in an epoch.
        batch_size: crops in a step.
        learning_rate: the highest.
        validation_fraction: of the images, at least one.
        max_grad_norm: gradients are clipped to.
        elastic_magnitude: largest shift in pixels by which images are bent.
        prompt_share: of the steps, with prompts as of :class:`~topolora_monai.engines.PromptRounds`, where the network
            takes prompts and has one class.
        val_interval: epochs between validations.
        improvement: by how much Dice on the validation images has to rise for the new adapter to be kept.
        least_images: validation images that a new adapter needs to become current; six are the fewest with which
            Wilcoxon's test can tell. So many are set apart where they are at most a third.
        significance: largest p-value of that test, over the validation images, with which it becomes current.
        seed: of the split, the crops and the order.

    Raises:
        ConfigError: for an impossible value.
    """

    epochs: int = 8
    crops_per_image: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    validation_fraction: float = 0.2
    max_grad_norm: float | None = None
    elastic_magnitude: float | None = None
    prompt_share: float | None = None
    val_interval: int = 2
    improvement: float = 0.0
    least_images: int = 6
    significance: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "crops_per_image", "batch_size", "learning_rate", "max_grad_norm", "val_interval"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be greater than 0", found=value)
        if self.prompt_share is not None and not 0 <= self.prompt_share <= 1:
            raise ConfigError("prompt_share must be from 0 to 1", found=self.prompt_share)
        if not 0 < self.validation_fraction < 1:
            raise ConfigError("validation_fraction must be between 0 and 1", found=self.validation_fraction)
        if self.least_images < 1:
            raise ConfigError("least_images must be at least 1", found=self.least_images)
        if not 0 < self.significance <= 1:
            raise ConfigError("significance must be above 0 and at most 1", found=self.significance)


@dataclass(frozen=True)
class Progress:
    """How far a fine-tuning is: fraction of the steps, in [0, 1]; loss of the latest; seconds by the steps so far."""

    fraction: float
    loss: float
    seconds_left: float


@dataclass(frozen=True)
class FineTuning:
    """What came of it.

    Args:
        version: the new version; None if it is not better.
        in_use: whether it became the current one; else the old one still is.
        reason: why it did not, in words; empty if it did.
        test: of Dice image by image, the new adapter's against the old one's; None if it was stopped before the first
            validation.
        before: Dice on the validation images, in [0, 1], of the old adapter.
        after: of the best state in training; NaN if it was stopped before the first validation.
        cancelled: whether it was stopped.
        training: names of the images trained on.
        validation: names of those it was judged by.
    """

    version: AdapterVersion | None
    in_use: bool
    reason: str
    test: PairedTest | None
    before: float
    after: float
    cancelled: bool
    training: tuple[str, ...]
    validation: tuple[str, ...]


def split_pairs(
    pairs: Sequence[tuple[str | Path, str | Path]], validation_fraction: float, seed: int = 0, least: int = 1
) -> tuple[list[Item], list[Item]]:
    """Divide pairs into those to train on and those to judge by; all labels of an image stay together.

    Args:
        pairs: (image, label).
        validation_fraction: of the images; at least one goes to each side.
        seed: of the choice; the order of the pairs does not matter.
        least: images to judge by, where they are at most a third.

    Raises:
        DataError: for fewer than two images.

    Example:
        >>> training, validation = split_pairs([("a.png", "1.png"), ("b.png", "2.png"), ("a.png", "3.png")], 0.5)
        >>> sorted(len(side) for side in (training, validation))
        [1, 2]
    """
    images = sorted({str(Path(image).absolute()) for image, _ in pairs})
    if len(images) < 2:
        raise DataError(
            "too few annotated images to train on", expected="at least 2", found=len(images), hint="submit more labels"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    count = max(1, round(validation_fraction * len(images)), min(least, len(images) // 3))
    count = min(count, len(images) - 1)
    held_out = {images[index] for index in order[:count]}
    sides: tuple[list[Item], list[Item]] = ([], [])
    for image, label in sorted((str(Path(i).absolute()), str(Path(m).absolute())) for i, m in pairs):
        sides[image in held_out].append(Item(name=Path(image).stem, image=image, label=label))
    return sides


def fine_tune(
    pairs: Sequence[tuple[str | Path, str | Path]],
    versions: AdapterVersions,
    *,
    weights: str | Path | None = None,
    settings: TrainingSettings | None = None,
    device: str | torch.device = "cpu",
    precision: Precision | None = None,
    field_of_view: bool = False,
    author: str = "fine-tuning",
    note: str = "",
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FineTuning:
    """Train what the current adapter trains, and nothing else, from where it is, by the bundle's training workflow.

    The recipe is the one that the adapter was trained by, as its file says, or else the bundle's. The state with the
    highest Dice on the validation images, at its best threshold, becomes a new version if that is higher than the old
    adapter's on the same images; its threshold and temperature are chosen as the old one's were. It becomes current
    only if there are enough of these images and a paired test over them agrees, see :class:`TrainingSettings`; else it
    is kept for somebody to choose. Nothing in the history changes before that, so that a process that is stopped or
    killed leaves the old version current.

    Args:
        pairs: (image, label); labels two-valued, or class numbers where the adapter has several classes.
        versions: whose current one is trained; the new one is added to it.
        weights: the base checkpoint.
        settings: None for the defaults.
        device: to train on.
        precision: ``"fp32"`` or ``"bf16"``; None takes what the device is fast in.
        field_of_view: learn from, and judge by, the lit disc of fundus photographs alone.
        author: noted with the new version.
        note: likewise.
        progress: called after each step.
        cancelled: asked after each step; True stops, and keeps the old version.

    Raises:
        DataError: without a current version, with too few images, or for a file that cannot be used.
        AdapterFileError: if the current version does not fit the weights.
        ConfigError: for settings that are not possible.
        TopoLoRAError: if the loss is not a number.
        OutputError: if the new version cannot be stored.
    """
    settings = settings or TrainingSettings()
    current = versions.current()
    if current is None:
        raise DataError("no adapter to train", path=versions.folder, hint="add a first version")
    spec = read_spec(current.path)
    training, validation = split_pairs(pairs, settings.validation_fraction, settings.seed, settings.least_images)
    if field_of_view:
        training, validation = with_computed_fov(training), with_computed_fov(validation)
    network = build_as_stored(spec, current.path, weights=weights)
    adaptation = load_adapter(network, current.path)
    report = _Report(progress, cancelled)
    given = {id_: getattr(settings, name) for name, id_ in _RECIPE_SETTINGS.items()}
    chosen: dict[str, Any] = {id_: value for id_, value in given.items() if value is not None}
    if spec.out_channels > 1 or not isinstance(network, SamSegmenter):
        chosen["train#prompts#share"] = 0.0
    if precision is not None:
        chosen["precision"] = precision
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        data = _Annotations(
            root=run,
            splits={"training": training, "validation": validation, "test": []},
            channels=spec.in_channels,
            modality="sar" if spec.pixel_values != "linear" else "optical",
            pixel_values=spec.pixel_values,
            # Labels of one class are submitted as 0 and 255, too, so that 255 is not what the first training left out.
            label_values=numbered(spec.labels, spec.ignore) if spec.out_channels > 1 else None,
            classes=spec.labels,
        )
        with plain_errors():
            workflow = training_workflow(
                spec,
                adaptation,
                data,
                output_dir=run,
                device=torch.device(device),
                val_interval=min(settings.val_interval, settings.epochs),
                **{"tracker#trackers": [], **chosen},
            )
            workflow.initialize()
            workflow.evaluator.run()
            judged = _Judged(workflow.parser.get_parsed_content("validate#dice"))
            before, old = judged.best, judged.images
            workflow.evaluator.add_event_handler(Events.COMPLETED, judged)
            workflow.trainer.add_event_handler(Events.ITERATION_COMPLETED, report)
            workflow.run()
            workflow.finalize()
        best = read_spec(run / "adapter.safetensors")
        after = float("nan") if best.validation_dice is None else best.validation_dice
        version, test, reason = None, paired_test(judged.images, old) if judged.validated else None, ""
        if report.stopped or test is None or not after > before + settings.improvement:
            reason = "it was stopped" if report.stopped else "it is not better"
        else:
            reason = _doubt(test, settings)
            adaptation.network.load_state_dict(read_adapter_tensors(run / "adapter.safetensors"), strict=False)
            decided = {name: getattr(best, name) for name in _DECIDED}
            tuned = Path(folder) / "adapter.safetensors"
            save_adapter(adaptation, tuned, **dataclasses.replace(spec, **decided).to_header())
            epoch = read_json(run / "training.json", "train again")["validation"]["epoch"]
            scores = {"validation_dice": after, "validation_dice_before": before, "epoch": epoch}
            scores["settings"] = dataclasses.asdict(settings)
            scores["test"] = dataclasses.asdict(test)
            version = versions.add(tuned, author, note, current.number, scores, current=not reason)
    names = [tuple(item["name"] for item in items) for items in (training, validation)]
    return FineTuning(version, not reason, reason, test, before, after, report.stopped, *names)


def _doubt(test: PairedTest, settings: TrainingSettings) -> str:
    """Why a gain may be chance; empty if it is none."""
    if test.images < settings.least_images:
        return f"too few images to tell it from chance (at least {settings.least_images} are needed)"
    if test.difference <= 0 or test.p_value > settings.significance:
        return f"which may be chance (p = {test.p_value:.2g} in Wilcoxon's test)"
    return ""


_RECIPE_SETTINGS = {
    **{name: name for name in ("epochs", "crops_per_image", "batch_size", "learning_rate", "max_grad_norm", "seed")},
    "elastic_magnitude": "train#elastic#magnitude_range#1",
    "prompt_share": "train#prompts#share",
}
"""Of :class:`TrainingSettings`, what the workflow has, and where."""
_DECIDED = ("threshold", "threshold_by", "temperature", "validation_dice", "recipe", "prompts")
"""Entries of a model that training it on makes anew."""


@dataclass
class _Annotations:
    """Annotated images as a data set of the package."""

    root: Path
    splits: Splits
    channels: int
    modality: Modality
    pixel_values: PixelValues
    label_values: LabelValues | None
    classes: tuple[str, ...]
    name: str = "annotations"

    def items(self, split: Split) -> list[Item]:
        return list(self.splits[split])

    def describe(self) -> dict[str, Any]:
        return {"dataset": self.name}


class _Judged:
    """Dice of the validation images, of the adapter as it was and then of the best state since."""

    def __init__(self, dice: PooledDice) -> None:
        self._dice = dice
        self.best, self.images = dice.best().dice, dice.of_images()
        self.validated = False

    def __call__(self) -> None:
        value = self._dice.best().dice
        if not self.validated or value > self.best:
            self.best, self.images, self.validated = value, self._dice.of_images(), True


class _Report:
    """Tells after each step how far training is, and asks whether to stop."""

    def __init__(self, progress: Callable[[Progress], None] | None, cancelled: Callable[[], bool] | None) -> None:
        self._progress = progress
        self._cancelled = cancelled
        self._started = time.monotonic()
        self.stopped = False

    def __call__(self, engine: Engine) -> None:
        done, total = engine.state.iteration, (engine.state.max_epochs or 1) * (engine.state.epoch_length or 1)
        if self._progress is not None:
            output: Any = engine.state.output
            loss = float((output[0] if isinstance(output, list) else output)[Keys.LOSS])
            left = (time.monotonic() - self._started) / done * (total - done)
            self._progress(Progress(done / total, loss, left))
        if self._cancelled is not None and self._cancelled():
            self.stopped = True
            engine.terminate()
