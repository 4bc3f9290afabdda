"""The ``topolora`` command: one module for each group of subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from topolora_monai.cli import data, params, release, weights
from topolora_monai.errors import TopoLoRAError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Example:
        >>> main(["params", "--network_name", "vit_b", "--preset", "topolora"])  # doctest: +NORMALIZE_WHITESPACE
        total                  94,606,640
        trainable               4,377,472  4.63% of total
        published_trainable     4,929,508  with the decoder parts that get no gradient, which are frozen here
        0
    """
    parser = argparse.ArgumentParser(prog="topolora", description="Adapt SAM-family networks to thin structures.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (data, params, release, weights):
        group.add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except TopoLoRAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status
