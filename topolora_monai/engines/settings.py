"""Settings that are wrong in themselves, found before anything is loaded."""

from __future__ import annotations

from topolora_monai.errors import ConfigError

__all__ = ["check_settings"]

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
