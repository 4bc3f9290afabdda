"""``topolora params``: count the parameters of an adapted network."""

from __future__ import annotations

import argparse
import json
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    params = commands.add_parser("params", help="count the parameters of an adapted network")
    params.add_argument("--network_name", default="vit_b", help="vit_b, vit_l, vit_h, vit_t or vit_tiny_test")
    params.add_argument("--preset", default="topolora", help="topolora, conv_lora, lora, full, ...")
    params.add_argument("--rank", type=int, help="LoRA rank instead of the preset's")
    params.add_argument("--json", action="store_true", help="print one JSON object")
    params.set_defaults(run=_params)


def _params(options: argparse.Namespace) -> int:
    from topolora_monai.adapters import adapt, preset_config  # noqa: PLC0415 - importing torch takes seconds
    from topolora_monai.networks import build_network  # noqa: PLC0415

    config = preset_config(options.preset, lora_rank=options.rank)
    adaptation = adapt(build_network(options.network_name), config)
    counts = {
        "total": adaptation.total_count,
        "trainable": adaptation.trainable_count,
        "published_trainable": adaptation.published_trainable_count,
    }
    if options.json:
        print(json.dumps({"network_name": options.network_name, "preset": options.preset, **counts}))
        return 0
    notes = {
        "trainable": f"{counts['trainable'] / counts['total']:.2%} of total",
        "published_trainable": "with the decoder parts that get no gradient, which are frozen here",
    }
    for name, count in counts.items():
        print(f"{name:20}{count:>13,}  {notes.get(name, '')}".rstrip())
    return 0
