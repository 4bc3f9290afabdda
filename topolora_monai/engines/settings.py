"""Settings that are wrong in themselves, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from topolora_monai.errors import ConfigError

__all__ = ["check_classes", "check_settings"]

_PROTOCOLS = ("native", "published")


def check_settings(protocol: str, **positive: float) -> None:
    """Check a recipe's numbers.

    Args:
        protocol: ``"native"`` or ``"published"``.
        **positive: numbers by their name on the command line; all must be greater than 0.

    Raises:
        ConfigError: for the first that is not possible.

    Example:
        >>> check_settings("native", epochs=3, learning_rate=1e-4)
    """
    if protocol not in _PROTOCOLS:
        raise ConfigError("unknown protocol", expected=" or ".join(_PROTOCOLS), found=repr(protocol))
    for name, value in positive.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(
                f"{name} must be greater than 0", found=repr(value), hint=f"give --{name} a positive number"
            )


def check_classes(classes: Sequence[str], out_channels: int) -> None:
    """Make sure that a network has an output for each class of the data but the background.

    Args:
        classes: names, the background first.
        out_channels: of the network.

    Raises:
        ConfigError: if the numbers differ, or there are several: these recipes train one foreground class.

    Example:
        >>> check_classes(["background", "vessel"], out_channels=1)
    """
    foreground = list(classes[1:])
    if len(foreground) != 1 or out_channels != 1:
        raise ConfigError(
            "this recipe trains one foreground class",
            expected="two classes and out_channels 1",
            found=f"{', '.join(classes)} and out_channels {out_channels}",
            hint="make a data set with masks of one class",
        )
