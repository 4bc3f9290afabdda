"""``topolora plan``: settings of a training that fit the data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topolora_monai.cli.data import open_named, with_dataset


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    command = with_dataset(commands, "plan", "measure a training split, and write the settings that fit it")
    command.add_argument("--network_name", default="vit_b", help="network to train; vit_b if not given")
    command.add_argument("--out", type=Path, help="YAML file to write, to be edited and given to the training")
    command.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    from topolora_monai.planning import plan, plan_text, write_plan  # noqa: PLC0415 - loads torch

    fitted = plan(open_named(options), options.network_name)
    if options.out is None:
        print(plan_text(fitted), end="")
        return 0
    write_plan(fitted, options.out)
    crops = f"crops of {fitted.crop_size} px at {fitted.image_size} px"
    print(f"written to {options.out}: {crops}, {fitted.sampling} sampling")
    return 0
