"""``topolora release``: freeze a run into a bundle of its own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the subcommand to a parser."""
    release = commands.add_parser("release", help="freeze a run into a self-contained bundle")
    release.add_argument("--run", type=Path, required=True, dest="run_dir", help="folder of an evaluated run")
    release.add_argument("--out", type=Path, required=True, help="folder of the new bundle")
    release.add_argument("--weights", type=Path, help="base checkpoint that the run started from; looked for without it")
    release.add_argument("--source_bundle", type=Path, help="bundle that the run was made with")
    release.set_defaults(run=_release)


def _release(options: argparse.Namespace) -> int:
    from topolora_monai.release import release  # noqa: PLC0415 - importing torch takes seconds

    out = release(options.run_dir, options.out, options.weights, options.source_bundle)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"bundle written to {out} ({size / 1e6:.0f} MB); its card is docs/README.md")
    return 0
