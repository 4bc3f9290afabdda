"""Values as a configuration or MONAI's command line gives them."""

from typing import Any

from topolora_monai.errors import ConfigError


def parse_bool(value: Any) -> bool:
    """A switch as YAML or MONAI's command line gives it, which passes ``true`` and ``false`` on as words.

    Raises:
        ConfigError: for anything that is neither.

    Example:
        >>> parse_bool("false"), parse_bool(True)
        (False, True)
    """
    known = {"true": True, "false": False}
    word = str(value).lower()
    if word not in known:
        raise ConfigError("a switch is neither on nor off", expected="true or false", found=repr(value))
    return known[word]
