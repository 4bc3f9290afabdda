"""How a batch reaches the network, the loss and the metrics, and what is made of the answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import decollate_batch
from monai.engines.utils import IterationEvents
from monai.utils import convert_to_tensor
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from topolora_monai.engines.handlers import Handler
from topolora_monai.losses.base import SegmentationLoss
from topolora_monai.model.inferers import check_finite
from topolora_monai.model.uncertainty import UncertaintyInferer
from topolora_monai.model.writing import MaskWriter
from topolora_monai.networks.activation import Activation

Target = dict[str, Tensor]

_TARGET_KEYS = ("label", "fov", "label_skeleton")


def prepare_batch(
    batch: Mapping[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Target]:
    """Split a batch into ``image`` and, where they exist, ``label``, ``fov`` and ``label_skeleton``, as engines ask."""

    def move(key: str) -> Tensor:
        plain: Tensor = convert_to_tensor(batch[key], track_meta=False)  # MONAI's own kind slows every operation
        return plain.to(device=device, non_blocking=non_blocking, **kwargs)

    return move("image"), {key: move(key) for key in _TARGET_KEYS if key in batch}


class TargetLoss(nn.Module):
    """Give a masked loss the parts of the target, as ``loss(logits, label, mask=..., skeleton=...)``.

    It is the mean over several answers to a batch, one after the other as of
    :class:`~topolora_monai.engines.PromptRounds`. Where several processes train together, its means over pixels are
    over those of all of them.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        for term in loss.modules():
            if isinstance(term, SegmentationLoss):
                term.shared = idist.get_world_size() > 1

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        """Compute the loss of logits (R * B, K, H, W) against a target of :func:`prepare_batch` of B images."""
        label, parts = target["label"], {"mask": target.get("fov"), "skeleton": target.get("label_skeleton")}
        return torch.stack([self.loss(answer, label, **parts) for answer in logits.split(len(label))]).mean()


def batch_items(batch: Any) -> list[dict[str, Any]]:
    """A batch as one dictionary an image, whether MONAI has taken it apart already or not."""
    return batch if isinstance(batch, list) else decollate_batch(batch)


def image_names(batch: Any) -> list[str]:
    """Names of a batch's images."""
    return [str(item["name"]) for item in batch_items(batch)]


def probabilities_and_targets(output: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """Pairs for :class:`~topolora_monai.metrics.PooledDice`; the field of view is the target's last channel."""
    targets = [torch.cat([one[Keys.LABEL]["label"], one[Keys.LABEL]["fov"]]) for one in output]
    return [one[Keys.PRED] for one in output], targets


class FiniteAnswers(Handler):
    """Stop an evaluation engine at the first image that the network does not answer in numbers."""

    event = IterationEvents.FORWARD_COMPLETED

    def __call__(self, engine: Engine) -> None:
        """Check the logits of a batch.

        Raises:
            TopoLoRAError: as :func:`~topolora_monai.model.inferers.check_finite`.
        """
        check_finite(engine.state.output[Keys.PRED], image_names(engine.state.batch))


class PredictionWriter(MaskWriter):
    """Write what an engine answers, as :class:`~topolora_monai.model.writing.MaskWriter` does.

    Args:
        folder: as there, and so are ``threshold`` and ``activation``.
        threshold: foreground is what is at least that.
        activation: what made the probabilities.
        uncertainty: the inferer of the engine, whose entropies are written.
        key: of the probabilities in the engine's output.

    Raises:
        ConfigError: for a threshold that is no number from 0 to 1.
    """

    def __init__(
        self,
        folder: str | Path,
        threshold: float = 0.5,
        activation: Activation = "sigmoid",
        uncertainty: UncertaintyInferer | None = None,
        key: str = Keys.PRED,
    ) -> None:
        super().__init__(folder, threshold, activation)
        self.uncertainty = uncertainty
        self.key = key

    def attach(self, engine: Engine) -> None:
        """Act after each batch, if its answers are numbers."""
        FiniteAnswers().attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the images of a batch.

        Raises:
            OutputError: if a file cannot be written; those written before are whole.
        """
        latest = self.uncertainty.latest if self.uncertainty is not None else None
        for number, (one, item) in enumerate(zip(engine.state.output, batch_items(engine.state.batch), strict=True)):
            self.add(item, one[self.key], None if latest is None else latest.entropy[number])
