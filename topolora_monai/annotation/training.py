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
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, LrScheduleHandler, ValidationHandler
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import (
    Activationsd,
    CenterSpatialCropd,
    Compose,
    RandAdjustContrastd,
    RandFlipd,
    RandRotate90d,
    RandScaleIntensityd,
    RandSpatialCropd,
    SpatialPadd,
)
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from topolora_monai.adapters import Adaptation, adapter_state, load_adapter, read_spec, save_adapter
from topolora_monai.adapters.files import build_as_stored
from topolora_monai.annotation.versions import AdapterVersion, AdapterVersions
from topolora_monai.data import SampleSeeds, check_item
from topolora_monai.data.fields_of_view import with_computed_fov
from topolora_monai.data.items import Item
from topolora_monai.engines import (
    AutocastInferer,
    BalanceLoss,
    EpochSeed,
    GradientClipping,
    LossRamp,
    NonFiniteGuard,
    TargetLoss,
    default_precision,
    lr_schedule,
    prepare_batch,
    probabilities_and_targets,
)
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io import numbered
from topolora_monai.losses import TopologyLoss
from topolora_monai.metrics import PooledDice
from topolora_monai.model.inferers import Precision
from topolora_monai.model.spec import ModelSpec
from topolora_monai.networks import build_network, network_loss, probabilities
from topolora_monai.transforms import ExactSkeletond, RandConnectedElasticd

__all__ = ["FineTuning", "Progress", "TrainingSettings", "fine_tune", "split_pairs"]

_KEYS = ["image", "label", "fov"]


@dataclass(frozen=True)
class TrainingSettings:
    """How to fine-tune.

    Args:
        epochs: passes over the training images.
        crops_per_image: of each image in an epoch.
        batch_size: crops in a step.
        learning_rate: at the end of the warm-up, a tenth of the steps.
        validation_fraction: of the images, at least one.
        max_grad_norm: gradients are clipped to.
        elastic_magnitude: largest shift in pixels by which images are bent.
        val_interval: epochs between validations.
        improvement: by how much Dice on the validation images has to rise for the new adapter to be kept.
        seed: of the split, the crops and the order.

    Raises:
        ConfigError: for an impossible value.
    """

    epochs: int = 8
    crops_per_image: int = 4
    batch_size: int = 2
    learning_rate: float = 2e-4
    validation_fraction: float = 0.2
    max_grad_norm: float = 1.0
    elastic_magnitude: float = 10.0
    val_interval: int = 2
    improvement: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "crops_per_image", "batch_size", "learning_rate", "max_grad_norm", "val_interval"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0", found=getattr(self, name))
        if not 0 < self.validation_fraction < 1:
            raise ConfigError("validation_fraction must be between 0 and 1", found=self.validation_fraction)


@dataclass(frozen=True)
class Progress:
    """How far a fine-tuning is.

    Args:
        fraction: of the steps, in [0, 1].
        loss: of the latest step.
        seconds_left: estimated from the steps so far.
    """

    fraction: float
    loss: float
    seconds_left: float


@dataclass(frozen=True)
class FineTuning:
    """What came of it.

    Args:
        version: the new current version; None if the old one was kept.
        before: Dice on the validation images, in [0, 1], of the old adapter.
        after: of the best state in training; NaN if it was stopped before the first validation.
        cancelled: whether it was stopped.
        training: names of the images trained on.
        validation: names of those it was judged by.
    """

    version: AdapterVersion | None
    before: float
    after: float
    cancelled: bool
    training: tuple[str, ...]
    validation: tuple[str, ...]


def split_pairs(
    pairs: Sequence[tuple[str | Path, str | Path]], validation_fraction: float, seed: int = 0
) -> tuple[list[Item], list[Item]]:
    """Divide pairs into those to train on and those to judge by; all labels of an image stay together.

    Args:
        pairs: (image, label).
        validation_fraction: of the images; at least one goes to each side.
        seed: of the choice; the order of the pairs does not matter.

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
    count = min(max(1, round(validation_fraction * len(images))), len(images) - 1)
    held_out = {images[index] for index in order[:count]}
    items = sorted(
        (Item(name=Path(i).stem, image=str(Path(i).absolute()), label=str(Path(m).absolute())) for i, m in pairs),
        key=lambda item: (item["image"], item["label"]),
    )
    return [item for item in items if item["image"] not in held_out], [
        item for item in items if item["image"] in held_out
    ]


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
    """Train what the current adapter trains, and nothing else, from where it is.

    Images are cut to the adapter's own ``crop_size`` and prepared as it was trained. The state with the highest
    Dice on the validation images, at its best threshold, becomes a new current version if that is higher than the
    old adapter's on the same images; its file says the threshold. Nothing in the history changes before that, so
    that a process that is stopped or killed leaves the old version current.

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
    # Labels of one class are submitted as 0 and 255, too, so that 255 is not what the first training left out.
    label_values = numbered(spec.labels, spec.ignore) if spec.out_channels > 1 else None
    training, validation = split_pairs(pairs, settings.validation_fraction, settings.seed)
    if field_of_view:
        training, validation = with_computed_fov(training), with_computed_fov(validation)
    for item in [*training, *validation]:
        check_item(item, label_values)
    network = build_as_stored(spec, build_network, current.path, weights=weights)
    adaptation = load_adapter(network, current.path)
    network.to(device)
    run = _Run(adaptation, spec, settings, torch.device(device), precision or default_precision(device))
    run.load(training, validation, spec.loading_transforms(label_values=label_values, label_channels=spec.out_channels))
    before = run.validate()
    stopped = run.train(progress, cancelled)
    version = None
    if not stopped and run.best is not None and run.best.dice > before + settings.improvement:
        version = run.store(versions, current, before, author, note)
    return FineTuning(
        version,
        before,
        run.best.dice if run.best is not None else float("nan"),
        stopped,
        tuple(item["name"] for item in training),
        tuple(item["name"] for item in validation),
    )


@dataclass(frozen=True)
class _Best:
    dice: float
    threshold: float
    epoch: int
    state: dict[str, Tensor]


class _Run:
    """The trainer and the evaluator of one fine-tuning."""

    def __init__(
        self,
        adaptation: Adaptation,
        spec: ModelSpec,
        settings: TrainingSettings,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.adaptation = adaptation
        self.spec = spec
        self.settings = settings
        self.device = device
        self.precision: Precision = precision
        self.dice = PooledDice(spec.activation)
        self.best: _Best | None = None

    def load(self, training: list[Item], validation: list[Item], loading: Compose) -> None:
        """Read all images once, and put the engines together."""
        decibels = self.spec.pixel_values != "linear"
        augmentation = Compose([*loading.transforms, *_augmentation(self.spec.crop_size, self.settings, decibels)])
        repeated = training * self.settings.crops_per_image
        cached = CacheDataset(repeated, augmentation, hash_as_key=True, progress=False)
        self._samples = SampleSeeds(cached, self.settings.seed)
        self._training = DataLoader(self._samples, batch_size=self.settings.batch_size, shuffle=True)
        self._evaluator = SupervisedEvaluator(
            device=self.device,
            val_data_loader=DataLoader(CacheDataset(validation, loading, progress=False), batch_size=1),
            network=self.adaptation.network,
            prepare_batch=prepare_batch,
            inferer=AutocastInferer(
                SlidingWindowInferer([self.spec.crop_size] * 2, sw_batch_size=4, overlap=0.25, mode="gaussian"),
                self.precision,
            ),
            postprocessing=Activationsd(
                keys=Keys.PRED, other=lambda logits: probabilities(logits, self.spec.activation)
            ),
            key_val_metric={"val_dice": IgniteMetricHandler(self.dice, output_transform=probabilities_and_targets)},
        )

    def validate(self) -> float:
        """Dice of the network as it is, at its best threshold."""
        self._evaluator.run()
        return self.dice.best().dice

    def train(self, progress: Callable[[Progress], None] | None, cancelled: Callable[[], bool] | None) -> bool:
        """Train to the end, or until somebody stops it; says whether somebody did."""
        settings = self.settings
        parameters = list(self.adaptation.trainable().values())
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-4)
        total = settings.epochs * len(self._training)
        schedule = lr_schedule(optimizer, "cosine", total, 0.1)
        exclusive = self.spec.exclusive
        loss = TopologyLoss(
            {"ce" if exclusive else "bce": 1.0, "dice": 1.0, "cldice": 0.5},
            softmax=exclusive,
            implicit_background=exclusive,
        )
        report = _Report(total, progress, cancelled)
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=settings.epochs,
            train_data_loader=self._training,
            network=self.adaptation.network,
            optimizer=optimizer,
            loss_function=TargetLoss(network_loss(self.adaptation.network, loss)),
            prepare_batch=prepare_batch,
            inferer=AutocastInferer(SimpleInferer(), self.precision),
            train_handlers=[
                EpochSeed(settings.seed, self._samples),
                LossRamp(loss),
                BalanceLoss(),
                NonFiniteGuard(),
                GradientClipping(settings.max_grad_norm),
                LrScheduleHandler(schedule, epoch_level=False, print_lr=False),
                report,
            ],
        )
        keep = self._evaluator.add_event_handler(Events.COMPLETED, self._keep_best, trainer, report)
        ValidationHandler(
            interval=min(settings.val_interval, settings.epochs), validator=self._evaluator, epoch_level=True
        ).attach(trainer)
        trainer.run()
        keep.remove()
        return report.stopped

    def store(
        self, versions: AdapterVersions, parent: AdapterVersion, before: float, author: str, note: str
    ) -> AdapterVersion:
        """Add the best state to the history."""
        assert self.best is not None  # or there is nothing to store
        state = {name: tensor.to(self.device) for name, tensor in self.best.state.items()}
        self.adaptation.network.load_state_dict(state, strict=False)
        scores = {"validation_dice": self.best.dice, "validation_dice_before": before, "epoch": self.best.epoch}
        spec = dataclasses.replace(
            self.spec,
            threshold=self.best.threshold,
            threshold_by="dice",
            temperature=1.0,
            validation_dice=self.best.dice,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "adapter.safetensors"
            save_adapter(self.adaptation, path, **spec.to_header())
            settings = dataclasses.asdict(self.settings)
            return versions.add(path, author, note, parent.number, scores | {"settings": settings})

    def _keep_best(self, evaluator: Engine, trainer: Engine, report: _Report) -> None:
        dice, threshold = self.dice.best()
        if not report.stopped and (self.best is None or dice > self.best.dice):
            state = {name: tensor.clone() for name, tensor in adapter_state(self.adaptation.network).items()}
            self.best = _Best(dice, threshold, trainer.state.epoch, state)


class _Report:
    """Tells how far training is, and asks whether to stop."""

    def __init__(
        self, total: int, progress: Callable[[Progress], None] | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._total = total
        self._progress = progress
        self._cancelled = cancelled
        self._started = time.monotonic()
        self.stopped = False

    def attach(self, engine: Engine) -> None:
        """Act after each step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        done = engine.state.iteration
        if self._progress is not None:
            output: Any = engine.state.output
            loss = float((output[0] if isinstance(output, list) else output)[Keys.LOSS])
            left = (time.monotonic() - self._started) / done * (self._total - done)
            self._progress(Progress(done / self._total, loss, left))
        if self._cancelled is not None and self._cancelled():
            self.stopped = True
            engine.terminate()


def _augmentation(crop_size: int, settings: TrainingSettings, decibels: bool) -> list[Any]:
    """As the training recipe's, for photographs; values in decibels keep their brightness."""
    margin = crop_size * 3 // 2
    geometric = [
        SpatialPadd(keys=_KEYS, spatial_size=(margin, margin)),
        RandSpatialCropd(keys=_KEYS, roi_size=(margin, margin), random_size=False),
        RandConnectedElasticd(
            keys=_KEYS,
            mode=["bilinear", "connected", "inside"],
            prob=0.5,
            magnitude_range=(0.0, settings.elastic_magnitude),
        ),
        CenterSpatialCropd(keys=_KEYS, roi_size=(crop_size, crop_size)),
        RandFlipd(keys=_KEYS, prob=0.5, spatial_axis=0),
        RandFlipd(keys=_KEYS, prob=0.5, spatial_axis=1),
        RandRotate90d(keys=_KEYS, prob=0.5),
    ]
    brightness = [
        RandScaleIntensityd(keys="image", prob=0.5, factors=0.1, channel_wise=True),
        RandAdjustContrastd(keys="image", prob=0.5, gamma=(0.75, 1.3)),
    ]
    return [*geometric, *([] if decibels else brightness), ExactSkeletond(keys="label")]
