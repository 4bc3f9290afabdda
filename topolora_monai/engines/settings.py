"""Settings that are wrong in themselves, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.networks.activation import Activation, check_activation
from topolora_monai.networks.registry import MulticlassHead
from topolora_monai.spec import ThresholdBy

__all__ = ["check_classes", "check_settings", "check_threshold_by"]


def check_settings(**positive: float) -> None:
    """Check a recipe's numbers.

    Args:
        **positive: numbers by their name on the command line; all must be greater than 0.

    Raises:
        ConfigError: for the first that is not possible.

    Example:
        >>> check_settings(epochs=3, learning_rate=1e-4)
    """
    for name, value in positive.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(
                f"{name} must be greater than 0", found=repr(value), hint=f"give --{name} a positive number"
            )


def check_threshold_by(name: str) -> str:
    """What a threshold is best for: ``"dice"`` or ``"cldice"``.

    Raises:
        ConfigError: for another name.

    Example:
        >>> check_threshold_by("cldice")
        'cldice'
    """
    if name not in get_args(ThresholdBy):
        raise unknown_choice("threshold_by", name, get_args(ThresholdBy))
    return name


def check_classes(
    classes: Sequence[str],
    out_channels: int,
    activation: Activation = "sigmoid",
    multiclass_head: MulticlassHead = "per_class",
) -> None:
    """Make sure that a network has an output for each class of the data but the background.

    Args:
        classes: names, the background first.
        out_channels: of the network.
        activation: what makes probabilities of its outputs.
        multiclass_head: what makes its outputs.

    Raises:
        ConfigError: if the numbers differ, the names are not told apart, or head and activation do not fit.

    Example:
        >>> check_classes(["background", "cup", "window"], 2, "softmax", "token_set")
    """
    check_activation(activation)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ConfigError(
            "classes are not told apart", expected="the background and at least one other name", found=list(classes)
        )
    if out_channels != len(classes) - 1:
        raise ConfigError(
            "the network has another number of classes than the data",
            expected=f"out_channels {len(classes) - 1}, for {', '.join(classes[1:])}",
            found=f"out_channels {out_channels}",
            hint="leave out_channels out, and give --classes if the masks hold others than the data set's",
        )
    if multiclass_head == "token_set" and out_channels > 1 and activation != "softmax":
        raise ConfigError(
            "a token set is for classes that exclude one another",
            expected="activation softmax",
            found=f"activation {activation}",
            hint="set multiclass_head per_class for classes that overlap",
        )
