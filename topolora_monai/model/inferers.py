"""Inferers around MONAI's: reduced precision on any device, copies seen otherwise at test time, calibrated logits."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from monai.inferers import Inferer
from torch import Tensor

from topolora_monai.errors import ConfigError, TopoLoRAError

__all__ = [
    "AutocastInferer",
    "FlipInferer",
    "Precision",
    "TemperatureInferer",
    "View",
    "check_finite",
    "default_precision",
    "views",
]

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: str | torch.device) -> Precision:
    """``"bf16"`` where the hardware multiplies bfloat16 natively, else ``"fp32"``."""
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "fp32"


class AutocastInferer(Inferer):
    """Run the network under autocast on CPU or GPU and give float32 logits back.

    MONAI's own ``amp`` switch works on CUDA only; bfloat16 also speeds up recent CPUs and needs no loss
    scaling. For float16 training set ``amp: true`` on the trainer too, for its gradient scaler.

    Args:
        inferer: what runs the network, for example a ``SimpleInferer``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        ConfigError: for another precision.
    """

    def __init__(self, inferer: Inferer, precision: Precision = "bf16") -> None:
        super().__init__()
        if precision not in _DTYPES:
            raise ConfigError("unknown precision", expected=", ".join(_DTYPES), found=repr(precision))
        self.inferer = inferer
        self.dtype = _DTYPES[precision]

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits of ``inputs``, float32."""

        def run(window: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            context = torch.autocast(window.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext()
            with context:
                logits: Tensor = network(window, *args, **kwargs)
            return logits.float()

        return self.inferer(inputs, run, *args, **kwargs)


class View(NamedTuple):
    """A way to look at an image: mirrored along some axes, then turned by so many quarters.

    Example:
        >>> image = torch.rand(1, 1, 2, 3)
        >>> view = View((-1,), 1)
        >>> tuple(view.of(image).shape), torch.equal(view.back(view.of(image)), image)
        ((1, 1, 3, 2), True)
    """

    axes: tuple[int, ...]
    quarters: int

    def of(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) seen so."""
        return torch.rot90(images.flip(self.axes), self.quarters, (-2, -1))

    def back(self, answers: Tensor) -> Tensor:
        """Answers to them, as the images were."""
        return torch.rot90(answers, -self.quarters, (-2, -1)).flip(self.axes)


def views(axes: int, quarter_turns: bool = False) -> list[View]:
    """An image, its mirror images along each axis and both, and all of these turned by a quarter if asked for.

    Raises:
        ConfigError: for another number of axes than 0, 1 or 2.
    """
    if axes not in (0, 1, 2):
        raise ConfigError("a 2-D image is mirrored along 0, 1 or 2 axes", found=axes)
    mirrored = [flip for count in range(axes + 1) for flip in itertools.combinations((-1, -2)[:axes], count)]
    return [View(flip, quarters) for quarters in range(1 + quarter_turns) for flip in mirrored]


class FlipInferer(Inferer):
    """Average the logits of the image, its mirror images and their quarter turns (test-time augmentation).

    Args:
        inferer: what runs the network on each copy.
        axes: number of spatial axes to mirror: 0 leaves the image alone, 2 averages four copies.
        quarter_turns: also turn each copy by a quarter; with two axes these are all eight ways to lay a square.

    Raises:
        ConfigError: for another number of axes.
    """

    def __init__(self, inferer: Inferer, axes: int = 2, quarter_turns: bool = False) -> None:
        super().__init__()
        self.inferer = inferer
        self.views = views(axes, quarter_turns)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Averaged logits of ``inputs``."""
        answers = (view.back(self.inferer(view.of(inputs), network, *args, **kwargs)) for view in self.views)
        return functools.reduce(torch.add, answers) / len(self.views)


class TemperatureInferer(Inferer):
    """Divide the logits by a temperature, so that probabilities mean what they say (Guo et al., ICML 2017).

    Put it outside of inferers that average: a temperature is fitted to their result.

    Args:
        inferer: what gives the logits.
        temperature: above 0; above 1 makes less sure.

    Raises:
        ConfigError: for one that is not.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> TemperatureInferer(SimpleInferer(), 2.0)(torch.tensor([3.0]), torch.nn.Identity())
        tensor([1.5000])
    """

    def __init__(self, inferer: Inferer, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError("a temperature must be above 0", found=temperature, hint="1 leaves probabilities alone")
        self.inferer = inferer
        self.temperature = temperature

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits of ``inputs``, divided."""
        return self.inferer(inputs, network, *args, **kwargs) / self.temperature


def check_finite(logits: Tensor, images: Sequence[str]) -> None:
    """Make sure that a network answered in numbers; anything else would come out as an empty mask.

    Raises:
        TopoLoRAError: if one of the logits or probabilities is infinite or none at all; names the images.
    """
    finite = torch.isfinite(logits)
    if not finite.all():
        raise TopoLoRAError(
            "the network's answer is not a number",
            found=f"{int((~finite).sum()):,} of {finite.numel():,} values, image {', '.join(images)}",
            hint="try --precision fp32; if that does not help its training diverged: take an earlier adapter",
        )
