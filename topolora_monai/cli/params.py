"""``topolora params``: count the parameters of an adapted network, or those of all presets on it."""

import argparse
import json
from typing import Any

from topolora_monai.cli.common import add_command, show_table
from topolora_monai.errors import ConfigError


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    params = add_command(commands, "params", _params, "count the parameters of an adapted network")
    params.add_argument("--network_name", default="vit_b", help="vit_b, vit_l, vit_h, vit_t, sam2_t or vit_tiny_test")
    params.add_argument("--preset", default="topolora", help="topolora, conv_lora, lora, full, ...; --list names all")
    params.add_argument("--rank", type=int, help="rank of the preset's low-rank method instead of the preset's")
    params.add_argument("--list", action="store_true", help="all presets on this network, with what trains")
    params.add_argument("--json", action="store_true", help="print JSON")


def _params(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import adapt, preset_config  # noqa: PLC0415 - importing torch takes seconds
    from topolora_monai.networks import build_network  # noqa: PLC0415

    if options.list:
        _list(options)
        return
    config = preset_config(options.preset, **_rank(options.preset, options.rank))
    adaptation = adapt(build_network(options.network_name), config)
    counts = {
        "total": adaptation.total_count,
        "trainable": adaptation.trainable_count,
        "published_trainable": adaptation.published_trainable_count,
    }
    if options.json:
        print(json.dumps({"network_name": options.network_name, "preset": options.preset, **counts}))
        return
    published = ""  # how the paper's way to count differs
    if counts["published_trainable"] < counts["trainable"]:
        published = "without mask tokens 1 to 3, which its decoder does not have"
    elif counts["published_trainable"] > counts["trainable"]:
        published = "with the decoder parts that get no gradient, which are frozen here"
    notes = ("", f"{counts['trainable'] / counts['total']:.2%} of total", published)
    for (name, count), note in zip(counts.items(), notes, strict=True):
        print(f"{name:20}{count:>13,}  {note}".rstrip())


def _rank(preset: str, rank: int | None) -> dict[str, dict[str, int]]:
    """The override that sets the rank of the method a preset has."""
    from topolora_monai.adapters import METHODS, preset_config  # noqa: PLC0415

    if rank is None:
        return {}
    config = preset_config(preset)
    present = [name for name in METHODS if getattr(config, name) is not None]
    if not present:
        raise ConfigError(f"preset {preset} has no rank to set", hint="leave --rank out, or choose another preset")
    return {present[0]: {"r": rank}}


def _list(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import PRESETS  # noqa: PLC0415
    from topolora_monai.adapters.inspection import summarize_preset  # noqa: PLC0415

    summaries = [summarize_preset(preset, options.network_name) for preset in PRESETS]
    if options.json:
        print(json.dumps([summary._asdict() for summary in summaries]))
        return
    rows = (
        (one.preset, one.trains, one.paper, f"{one.trainable:,}", f"{one.file_bytes / 1e6:,.1f} MB", one.mergeable)
        for one in summaries
    )
    numbers = ("trainable", "file")
    show_table(("preset", "what trains", "arXiv", *numbers, "mergeable"), rows, numbers)
