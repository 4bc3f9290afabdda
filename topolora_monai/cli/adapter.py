"""``topolora adapter``: look into adapter files, verify, merge, compare, convert and release them."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.common import add_command, show_table

if TYPE_CHECKING:
    from topolora_monai.adapters.inspection import AdapterSummary

_DIFFERENT, _TROUBLE = 1, 2  # exit status, as of the command diff


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    group = commands.add_parser(
        "adapter", help="look into adapter files, verify, merge, compare, convert and release them"
    )
    adapter = group.add_subparsers(required=True, metavar="command")

    add_command(adapter, "list", _list, "those that come with the package, by the names that stand for their files")

    info = add_command(adapter, "info", _info, "what a file says of itself")
    info.add_argument("file", type=Path, help="an adapter file, or a name of `topolora adapter list`")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    verify = add_command(adapter, "verify", _verify, "read a file whole and hold it against its network")
    verify.add_argument("file", type=Path, help="as of info")
    verify.add_argument("--weights", help="base checkpoint, path or name, to compare with the one it was trained on")

    merge = add_command(adapter, "merge", _merge, "fold a file into its base and write the whole network")
    merge.add_argument("file", type=Path)
    merge.add_argument("--weights", help="base checkpoint, path or name; none for a base of random weights")
    merge.add_argument("--out", type=Path, required=True, help=".safetensors file to write")
    merge.add_argument("--force", action="store_true", help="replace an older file")

    about = "what differs between two files; exit status 1 if anything does"
    diff = add_command(adapter, "diff", _diff, about, error_status=_TROUBLE)
    diff.add_argument("first", type=Path)
    diff.add_argument("second", type=Path)

    to_peft = add_command(adapter, "to-peft", _to_peft, "write a file as a folder that Hugging Face PEFT loads")
    to_peft.add_argument("file", type=Path)
    to_peft.add_argument("--weights", help="base checkpoint, path or name; none for a base of random weights")
    to_peft.add_argument("--out", type=Path, required=True, help="folder to write")

    from_peft = add_command(adapter, "from-peft", _from_peft, "write the file of such a folder")
    from_peft.add_argument("folder", type=Path)
    from_peft.add_argument("--out", type=Path, required=True, help=".safetensors file to write")

    half = add_command(adapter, "half", _half, "write a file in 16 bits, half as large")
    half.add_argument("file", type=Path)
    half.add_argument("--out", type=Path, required=True, help=".safetensors file to write")

    release = add_command(adapter, "release", _release, "add a run's adapter to those that come with the package")
    release.add_argument("name", help="lower-case letters, digits and underscores")
    release.add_argument("--run", type=Path, required=True, dest="run_dir", help="folder of an evaluated run")
    release.add_argument("--licence", required=True, help="of the adapter, as the terms of its data allow")
    release.add_argument("--data", help="name, terms and citation of data that the package does not know")
    release.add_argument("--folder", type=Path, help="of released adapters, by default the package's own")
    for parser in (to_peft, from_peft):
        parser.add_argument("--force", action="store_true", help="write over what is there")


def _list(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import read_spec, released_adapters  # noqa: PLC0415 - torch takes seconds

    rows = []
    for one in released_adapters().values():
        size = f"{one.path.stat().st_size / 1e6:.1f}" if one.path.is_file() else "missing"
        finds = ", ".join(read_spec(one.name).labels[1:])
        rows.append((one.name, finds, size, one.checkpoint or one.network_name, one.licence, one.data))
    if not rows:
        print("no adapter comes with this version")
        return
    show_table(("name", "finds", "MB", "base", "licence", "data"), rows, numbers=["MB"])
    print("use one with topolora predict IMAGES --adapter NAME; `topolora adapter info NAME` says more")


def _half(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import halve_adapter  # noqa: PLC0415

    change = halve_adapter(options.file, options.out)
    size = options.out.stat().st_size / 1e6
    print(f"written to {options.out} ({size:.1f} MB): no tensor changed by more than {change:.1g} of its norm")


def _release(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import released_adapters  # noqa: PLC0415
    from topolora_monai.release import release_adapter  # noqa: PLC0415
    from topolora_monai.release.adapter import MOST_BYTES  # noqa: PLC0415

    added = release_adapter(options.run_dir, options.name, options.licence, options.data, options.folder)
    taken = sum(one.path.stat().st_size for one in released_adapters(added.folder).values())
    print(f"written to {added.path} ({added.path.stat().st_size / 1e6:.2f} MB); its card is {added.card}")
    print(f"adapters in {added.folder} take {taken / 1e6:.2f} of {MOST_BYTES / 1e6:.0f} MB")
    print(f"for README.md: `topolora predict photo.jpg --adapter {added.name}`")


def _info(options: argparse.Namespace) -> None:
    from topolora_monai.adapters.inspection import describe_adapter  # noqa: PLC0415 - torch takes seconds

    summary = describe_adapter(options.file)
    if options.json:
        numbers = {**vars(summary), "path": str(summary.path), "pixel_scale": summary.spec.pixel_scale}
        numbers["header"] = numbers.pop("spec").to_header()
        print(json.dumps(numbers, ensure_ascii=False))
    else:
        show_table(["", ""], (_facts(summary) | _released(summary.path)).items())


def _facts(summary: AdapterSummary) -> dict[str, str]:
    spec = summary.spec
    adaptation = spec.adaptation
    methods = {name: _listed(value) for name, value in adaptation.items() if isinstance(value, dict)}
    switches = {name: value for name, value in adaptation.items() if name != "preset" and not isinstance(value, dict)}
    told = ("format", "package_version", "network_name", "base_sha256", "adaptation")
    properties = {name: _shown(value) for name, value in spec.to_header().items() if name not in told}
    return {
        "method": spec.preset,
        **methods,
        "further": _listed({name: value for name, value in switches.items() if value not in (None, False)}),
        "base": spec.network_name,
        "base SHA-256": spec.base_sha256,
        **properties,
        "pixel scale": f"{spec.pixel_scale:g}",
        "tensors": f"{summary.tensors:,}",
        "parameters": f"{summary.parameters:,}",
        "file size": f"{summary.size:,} bytes",
        "file SHA-256": summary.sha256,
        "written by": f"topolora_monai {spec.package_version}",
    }


def _released(path: Path) -> dict[str, str]:
    from topolora_monai.adapters import released_adapters  # noqa: PLC0415

    found = [one for one in released_adapters().values() if one.path == path]
    return {"licence": found[0].licence, "data": found[0].data, "card": str(found[0].card)} if found else {}


def _listed(values: dict[str, Any]) -> str:
    return "; ".join(f"{name} {_shown(value)}" for name, value in values.items() if value is not None)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(entry) for entry in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _verify(options: argparse.Namespace) -> None:
    from topolora_monai.adapters.inspection import verify_adapter  # noqa: PLC0415

    summary, base_checked = verify_adapter(options.file, options.weights)
    print(f"{summary.path}: passed, SHA-256 {summary.sha256}")
    print(f"{summary.tensors} tensors fit {summary.spec.network_name} in every name, shape and type; all finite")
    if base_checked:
        print("base weights are those it was trained on, or it needs none")
    else:
        print("base weights not compared: give --weights for that")


def _merge(options: argparse.Namespace) -> None:
    from topolora_monai.release.merged_file import write_merged  # noqa: PLC0415

    spec = write_merged(options.file, options.out, options.weights, options.force)
    size = options.out.stat().st_size
    print(f"written to {options.out} ({size / 1e6:.1f} MB): {spec.network_name} with the adapter folded in")
    print('load it with topolora_monai.release.load_merged("...")')


def _to_peft(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import to_peft  # noqa: PLC0415

    spec = to_peft(options.file, options.out, options.weights, options.force)
    print(f"written to {options.out}; load it onto {spec.network_name} with peft.PeftModel.from_pretrained")


def _from_peft(options: argparse.Namespace) -> None:
    from topolora_monai.adapters import from_peft  # noqa: PLC0415

    spec = from_peft(options.folder, options.out, options.force)
    print(f"written to {options.out}: {spec.preset} on {spec.network_name}")


def _diff(options: argparse.Namespace) -> int:
    from topolora_monai.adapters.inspection import compare_adapters  # noqa: PLC0415

    found = compare_adapters(options.first, options.second)
    if found.equal:
        print("equal in every setting and value")
        return 0
    if found.settings:
        rows = ((name, _shown(first), _shown(second)) for name, (first, second) in found.settings.items())
        show_table(("setting", "first", "second"), rows)
    else:
        print("settings: equal")
    print()
    numbers = ("tensors", "norm of first", "of second", "relative difference", "cosine")
    groups = [
        (
            *(one.group, one.tensors, *(f"{norm:.5g}" for norm in one.norms), f"{one.relative_difference:.3g}"),
            "" if math.isnan(one.cosine) else f"{one.cosine:.6f}",
        )
        for one in found.groups
    ]
    show_table(("part", *numbers), groups, numbers)
    lists = {
        "only in the first": found.only_first,
        "only in the second": found.only_second,
        "of another shape or type": found.reshaped,
    }
    for title, names in lists.items():
        for name in names:
            print(f"{title}: {name}")
    return _DIFFERENT
