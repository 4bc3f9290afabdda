"""The ``topolora`` command: one module for each group of subcommands."""

import argparse
import os
import sys
from collections.abc import Sequence

from topolora_monai.cli import adapter, data, label, params, runs, weights, workflows
from topolora_monai.errors import INTERRUPTED, TopoLoRAError

__all__ = ["main"]


_PIPE_CLOSED = 141  # 128 and the number of SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Example:
        >>> main(["params", "--network_name", "vit_b", "--preset", "topolora"])  # doctest: +NORMALIZE_WHITESPACE
        total                  94,606,640
        trainable               4,377,472  4.63% of total
        published_trainable     4,929,508  with the decoder parts that get no gradient, which are frozen here
        0
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where it can still be found out that nobody reads on, as after `| head`
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed again on leaving
        return _PIPE_CLOSED


def _run(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="topolora", description="Adapt SAM-family networks to thin structures.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (workflows, data, adapter, label, params, runs, weights):
        group.add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except TopoLoRAError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(getattr(options, "error_status", 1))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
