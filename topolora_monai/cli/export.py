"""``topolora export``: an adapted network as a graph that runs without this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    export = commands.add_parser("export", help="write an adapted network for torch.export, ONNX or TorchScript")
    export.add_argument("--adapter", type=Path, required=True, help="adapter file of a run")
    export.add_argument("--weights", help="base checkpoint that the run started from; looked for without it")
    export.add_argument("--format", required=True, help="pt2, onnx or torchscript")
    export.add_argument("--out", type=Path, required=True, help="file to write: .pt2, .onnx or .ts")
    export.add_argument("--height", type=int, help="of the images the file takes, by default that of the tiles")
    export.add_argument("--width", type=int, help="likewise")
    export.add_argument("--image_size", type=int, help="side that they are enlarged to inside, by default as trained")
    export.add_argument("--probabilities", action="store_true", help="give probabilities instead of logits")
    export.add_argument("--int8", action="store_true", help="weights in 8 bits, for ONNX")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from topolora_monai.errors import ConfigError  # noqa: PLC0415 - importing torch takes seconds
    from topolora_monai.export import export_adapter  # noqa: PLC0415

    if (options.height is None) != (options.width is None):
        raise ConfigError("--height and --width come together", found="only one of them")
    exported = export_adapter(
        options.adapter,
        options.out,
        options.format,
        options.weights,
        size=None if options.height is None else (options.height, options.width),
        image_size=options.image_size,
        probabilities=options.probabilities,
        int8=options.int8,
    )
    print(
        f"written to {exported.path} ({exported.path.stat().st_size / 1e6:.1f} MB);"
        f" differs from the network by {exported.difference:.1e} of its output's range"
    )
    return 0
