"""``topolora weights``: list, fetch, verify and convert base checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.common import add_command, show_table

if TYPE_CHECKING:
    from torch import nn

    from topolora_monai.weights import KnownCheckpoint


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    group = commands.add_parser("weights", help="list, fetch, verify and convert base checkpoints")
    weights = group.add_subparsers(required=True, metavar="command")

    add_command(weights, "list", _list, "the published checkpoints that are known by name")

    fetch = add_command(weights, "fetch", _fetch, "download one that its owners let anyone download")
    fetch.add_argument("name", help="see `topolora weights list`")
    fetch.add_argument("--dir", type=Path, help="folder to put it in, by default one in the user's cache")
    fetch.add_argument("--sha256", help="expected checksum, for a file of which none is known")

    verify = add_command(weights, "verify", _verify, "compare a file with what is published and with its network")
    verify.add_argument("file", type=Path)
    verify.add_argument("name", nargs="?", help="the checkpoint that it should be; detected without it")

    convert = add_command(weights, "convert", _convert, "write a checkpoint as safetensors, which cannot hold code")
    convert.add_argument("file", type=Path)
    convert.add_argument("--out", type=Path, required=True, help=".safetensors file to write")


def _list(options: argparse.Namespace) -> None:
    from topolora_monai.weights import KNOWN_CHECKPOINTS, weights_folder  # noqa: PLC0415 - torch takes seconds

    rows = []
    for known in KNOWN_CHECKPOINTS.values():
        size = f"{known.size / 1e6:,.0f}" if known.size else "?"
        access = "by hand" if known.url is None else "download" if known.sha256 else "download with --sha256"
        here = _presence(known, weights_folder())
        rows.append((known.name, known.network_name, size, known.licence, access, here))
    show_table(("name", "network", "MB", "licence", "access", "here"), rows, numbers=["MB"])
    print(f"fetched to {weights_folder()}")


def _presence(known: KnownCheckpoint, folder: Path) -> str:
    path = folder / known.file_name
    if not path.is_file():
        return "begun" if path.with_name(f".{path.name}.part").is_file() else ""
    return "yes" if known.size in (None, path.stat().st_size) else "another size"


def _fetch(options: argparse.Namespace) -> None:
    from topolora_monai.weights import KNOWN_CHECKPOINTS, fetch_checkpoint  # noqa: PLC0415

    path = fetch_checkpoint(options.name, options.dir, options.sha256)
    known = KNOWN_CHECKPOINTS[options.name]
    print(f"{known.name} is in {path}\nlicence: {known.licence}\nplease cite: {known.citation}")
    if known.notes:
        print(f"note: {known.notes}")
    given = known.name if options.dir is None else path
    print(f"use it with --network_name {known.network_name} --weights {given}")


def _verify(options: argparse.Namespace) -> None:
    from topolora_monai.weights import summarise_names, verify_checkpoint  # noqa: PLC0415

    report = verify_checkpoint(options.file, _on_meta, options.name)
    print(f"SHA-256 {report.sha256}: {f'{report.name} as published' if report.name else 'of no known file'}")
    if report.origin:
        source = report.origin.get("name") or report.origin.get("source_file")
        print(f"its header says: converted from {source}, SHA-256 {report.origin.get('source_sha256')}")
    print(f"{report.tensors} tensors fit {report.network_name} in every name and shape")
    if report.left_out:
        print(f"left out, {report.network_name} has no place for them: {summarise_names(report.left_out)}")


def _on_meta(network_name: str) -> nn.Module:
    import torch  # noqa: PLC0415

    from topolora_monai.networks import build_network  # noqa: PLC0415

    with torch.device("meta"):
        return build_network(network_name)


def _convert(options: argparse.Namespace) -> None:
    from topolora_monai.weights import convert_checkpoint  # noqa: PLC0415

    header = convert_checkpoint(options.file, options.out)
    name = header["name"] or header["source_file"]
    print(f"written to {options.out}: {name}, network {header['network_name'] or 'unknown'}")
    print(f"source SHA-256 {header['source_sha256']}")
