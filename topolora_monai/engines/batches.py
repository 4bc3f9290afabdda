"""How a batch of the data pipeline reaches the network, the loss and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import decollate_batch
from monai.utils import convert_to_tensor
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from topolora_monai.losses.base import SegmentationLoss

__all__ = ["TargetLoss", "batch_items", "image_names", "prepare_batch", "probabilities_and_targets"]

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

    Where several processes train together, its means over pixels are over those of all of them.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        for term in loss.modules():
            if isinstance(term, SegmentationLoss):
                term.shared = idist.get_world_size() > 1

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        """Compute the loss of logits against a target of :func:`prepare_batch`."""
        parts = {"mask": target.get("fov"), "skeleton": target.get("label_skeleton")}
        result: Tensor = self.loss(logits, target["label"], **parts)
        return result


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
