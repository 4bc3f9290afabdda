"""Inferers around MONAI's: reduced precision on any device, flipped copies at test time, calibrated logits."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from monai.inferers import Inferer
from torch import Tensor

from topolora_monai.errors import ConfigError, TopoLoRAError

__all__ = [
    "AutocastInferer",
    "FlipInferer",
    "Precision",
    "TemperatureInferer",
    "check_finite",
    "default_precision",
    "mirrored_axes",
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


def mirrored_axes(axes: int) -> list[tuple[int, ...]]:
    """What an image and its mirror images are flipped along: nothing, then each axis and both.

    Raises:
        ConfigError: for another number of axes than 0, 1 or 2.
    """
    if axes not in (0, 1, 2):
        raise ConfigError("a 2-D image is mirrored along 0, 1 or 2 axes", found=axes)
    return [flip for count in range(axes + 1) for flip in itertools.combinations((-1, -2)[:axes], count)]


class FlipInferer(Inferer):
    """Average the logits of the image and its mirror images (test-time augmentation).

    Args:
        inferer: what runs the network on each copy.
        axes: number of spatial axes to mirror: 0 leaves the image alone, 2 averages four copies.

    Raises:
        ConfigError: for another number of axes.
    """

    def __init__(self, inferer: Inferer, axes: int = 2) -> None:
        super().__init__()
        self.inferer = inferer
        self.flips = mirrored_axes(axes)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Averaged logits of ``inputs``."""
        answers = (self.inferer(inputs.flip(axes), network, *args, **kwargs).flip(axes) for axes in self.flips)
        return functools.reduce(torch.add, answers) / len(self.flips)


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
