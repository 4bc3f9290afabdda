"""Training with prompts, as SAM was trained: on the errors of the present answer, over several rounds."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from torch import Tensor, nn

from topolora_monai.engines.batches import Target, prepare_batch
from topolora_monai.engines.handlers import Handler
from topolora_monai.errors import ConfigError
from topolora_monai.networks import SamSegmenter

_BOXES, _MASKS = 0.25, 0.5
"""Share of prompted steps with a box, and of rounds of clicks that are told the answer before."""
_BOX_NOISE, _MOST_NOISE = 0.1, 20.0
"""Standard deviation of a box's corners as a share of its sides, and the most in pixels, as in SAM's training."""
_DEEPEST = 16
_RIM = 2
"""Pixels from what both agree on within which an error that is no deeper is one of the edge alone."""
_AROUND = 33
"""Side in pixels of the surroundings in which an error's size is measured."""


class PromptRounds(Handler):
    """In a share of the steps, let the network answer prompts, too, each round on the same features of the image.

    The first answer has no prompt. Then come so many rounds of clicks on errors of the answer before, by
    :func:`sample_clicks`; all clicks so far are told each time. In half of these rounds the logits of that answer are
    told as well, and in a quarter of the steps the first round has a box around the target instead, moved a little,
    which stays. :class:`~topolora_monai.engines.TargetLoss` takes the mean over all answers (Kirillov et al., ICCV
    2023, appendix A). What is drawn belongs to the seed, the step, and an image's place in the batch that all processes
    make up together, so that a run that is taken up goes on as it would have.

    Attach it to the trainer, whose ``prepare_batch`` is :meth:`prepare_batch`.

    Args:
        network: that is trained, not wrapped for several devices.
        share: of the steps, from 0 to 1; 0 leaves training as it is without, in every bit.
        rounds: after the first answer, from 1.
        clicks: in a round, from 1.
        seed: of the run.

    Raises:
        ConfigError: for impossible settings, and with a share above 0 for a network that takes no prompts, or one of
            several classes, whose clicks would not say which one they mean.

    Example:
        >>> from topolora_monai.networks import build_network
        >>> network = build_network("vit_tiny_test", image_size=64)
        >>> prompts = PromptRounds(network, share=1.0, rounds=2)
        >>> line = torch.zeros(2, 1, 32, 32).index_fill(2, torch.tensor([15]), 1.0)
        >>> image, target, _, asking = prompts.prepare_batch({"image": line.expand(-1, 3, -1, -1), "label": line})
        >>> network(image, **asking).shape
        torch.Size([6, 1, 32, 32])
    """

    event = Events.ITERATION_STARTED

    def __init__(self, network: nn.Module, share: float = 0.0, rounds: int = 3, clicks: int = 1, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ConfigError("share of steps with prompts", expected="0 to 1", found=share)
        for name, number in (("rounds", rounds), ("clicks", clicks)):
            if number < 1:
                raise ConfigError(f"{name} of prompts must be at least 1", found=number, hint="share 0 trains without")
        if share and not isinstance(network, SamSegmenter):
            raise ConfigError(
                "this network takes no prompts",
                found=getattr(network, "base_name", type(network).__name__),
                hint="leave train#prompts#share 0",
            )
        if share and isinstance(network, SamSegmenter) and network.mask_decoder.class_tokens is not None:
            raise ConfigError(
                "prompts are trained with one class: a click does not say which of several it means",
                found=f"{len(network.mask_decoder.class_tokens)} mask tokens",
                hint="leave train#prompts#share 0, or train a model of each class",
            )
        self.share, self.rounds, self.clicks, self.seed = share, rounds, clicks, seed
        self._step = 0

    def __call__(self, engine: Engine) -> None:
        """Note which step it is."""
        self._step = engine.state.iteration

    def prepare_batch(
        self,
        batch: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Target] | tuple[Tensor, Target, tuple[()], dict[str, Any]]:
        """As :func:`~topolora_monai.engines.prepare_batch`; where the step has prompts, with what asks them."""
        image, target = prepare_batch(batch, device, non_blocking, **kwargs)
        draws = random.Random(f"{self.seed} {self._step}")
        if draws.random() >= self.share:
            return image, target
        return image, target, (), {"next_prompts": _Annotator(target, self, draws, self._own_draws(len(image)))}

    def _own_draws(self, count: int) -> list[random.Random]:
        """Of each image; its place is that of :class:`~topolora_monai.data.WholeBatches`."""
        places = range(idist.get_rank(), count * idist.get_world_size(), idist.get_world_size())
        return [random.Random(f"{self.seed} {self._step} {place}") for place in places]


class _Annotator:
    """Asks one batch, round by round."""

    def __init__(self, target: Target, plan: PromptRounds, draws: random.Random, own: list[random.Random]) -> None:
        self._label = target["label"] > 0.5
        self._valid = target["fov"] > 0.5 if "fov" in target else torch.ones_like(self._label)
        self._skeleton = target["label_skeleton"] > 0.5 if "label_skeleton" in target else None
        self._left, self._clicks = plan.rounds, plan.clicks
        self._draws, self._own = draws, own
        self._told: dict[str, Tensor] = {}
        self._box = draws.random() < _BOXES

    @torch.no_grad()
    def __call__(self, logits: Tensor) -> dict[str, Tensor] | None:
        if not self._left:
            return None
        self._left -= 1
        if self._box:
            self._box = False
            self._told["boxes"] = _moved(_boxes(self._label & self._valid), self._label.shape[-2:], self._own)
            return dict(self._told)
        draws = torch.tensor([[own.random() for _ in range(self._clicks)] for own in self._own], dtype=torch.float64)
        clicked = sample_clicks(logits > 0, self._label, draws, self._valid, self._skeleton)
        for name, new in zip(("points", "point_labels"), clicked, strict=True):
            self._told[name] = torch.cat([self._told[name], new], dim=1) if name in self._told else new
        return self._told | ({"mask_prompt": logits} if self._draws.random() < _MASKS else {})


def sample_clicks(
    answer: Tensor, label: Tensor, draws: Tensor, valid: Tensor | None = None, skeleton: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Clicks in the middle of errors, the larger the likelier; on the device of the masks.

    What was missed is clicked on the target's skeleton and, like what is wrongly there, on the middle line of the
    piece. Errors of at most two pixels along an edge that both agree on are clicked only where there are no others. The
    chance of a pixel grows with the square of its depth in the error and with how much of the error is near.

    Args:
        answer: masks, boolean, shape (B, 1, H, W).
        label: what is true, likewise.
        draws: in [0, 1), shape (B, N); which pixel is clicked depends on nothing else.
        valid: where errors count, likewise; None for everywhere.
        skeleton: of the label, likewise.

    Returns:
        Points (x, y), float32 (B, N, 2); 1 for missed, 0 for wrong, -1 where an image has no error, float32 (B, N).

    Example:
        >>> label = torch.zeros(1, 1, 9, 30, dtype=torch.bool)
        >>> label[..., 3:6, 5:25] = True
        >>> points, labels = sample_clicks(torch.zeros_like(label), label, torch.tensor([[0.1, 0.9]]))
        >>> points[0, :, 1].tolist(), labels.tolist()
        ([4.0, 4.0], [[1.0, 1.0]])
    """
    counts = torch.ones_like(label) if valid is None else valid
    missed, false = label & ~answer & counts, answer & ~label & counts
    chance = _middle(missed, answer, skeleton) + _middle(false, label)
    largest = chance.amax(dim=(-2, -1), keepdim=True)
    chance = torch.where(largest > 0, chance, (missed | false).float())
    around = F.avg_pool2d((chance > 0).float(), (_AROUND, 1), 1, (_AROUND // 2, 0))  # one side after the other is fast
    chance = chance * F.avg_pool2d(around, (1, _AROUND), 1, (0, _AROUND // 2))
    sums = chance.flatten(1).double().cumsum(dim=1)
    drawn = torch.searchsorted(sums, draws.to(sums) * sums[:, -1:], right=True).clamp(max=sums.shape[1] - 1)
    width = label.shape[-1]
    points = torch.stack([drawn % width, drawn // width], dim=2).float()
    told = label.flatten(1).gather(1, drawn).float()
    return points, torch.where(sums[:, -1:] > 0, told, -1.0)


def _middle(error: Tensor, other: Tensor, skeleton: Tensor | None = None) -> Tensor:
    """Squared depth of pixels on the middle line of an error of its own, else 0."""
    part = error.float()
    depth = part.clone()
    for _ in range(_DEEPEST - 1):
        part = -F.max_pool2d(-part, 3, 1, 1)  # what goes on beyond the image is no deeper for it
        if not part.any():
            break
        depth += part
    line = depth == F.max_pool2d(depth, 3, 1, 1)
    away = F.max_pool2d(other.float(), 2 * _RIM + 1, 1, _RIM) == 0
    chosen = line & (away | (depth > _RIM))
    if skeleton is not None:
        chosen = chosen | skeleton
    return depth.square() * (chosen & error)


def _boxes(mask: Tensor) -> Tensor:
    """Around masks (B, 1, H, W), as (x0, y0, x1, y1), (B, 4), float32; of an empty one the whole image."""
    sides = []
    for axis in (-2, -1):
        there = mask.any(dim=axis).flatten(1).float()
        sides.append((there.argmax(dim=1), there.shape[1] - 1 - there.flip(1).argmax(dim=1)))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1).float()


def _moved(boxes: Tensor, size: tuple[int, ...], own: list[random.Random]) -> Tensor:
    noise = boxes.new_tensor([[draws.gauss(0, _BOX_NOISE) for _ in range(4)] for draws in own])
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + (noise * sides).clamp(-_MOST_NOISE, _MOST_NOISE)
    most = boxes.new_tensor([size[1] - 1, size[0] - 1]).repeat(2)
    return torch.minimum(moved.clamp(min=0), most)
