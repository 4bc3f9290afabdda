"""``topolora data``: list, describe, download, verify, prepare and preview data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.tables import new_table, show_table
from topolora_monai.errors import ConfigError, unknown_choice

if TYPE_CHECKING:
    from rich.table import Table

    from topolora_monai.data import Benchmark, Item, SegmentationData, Verification
    from topolora_monai.data.verification import SplitFacts

__all__ = ["add_commands", "open_named", "with_dataset"]

_SHOWN_NOTES = 20


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    group = commands.add_parser("data", help="list, describe, download, verify, prepare and preview data sets")
    data = group.add_subparsers(required=True, metavar="command")

    listing = data.add_parser("list", help="the public data sets that are known by name")
    listing.set_defaults(run=_list)

    info = data.add_parser("info", help="size, splits, terms and citation of one")
    info.add_argument("dataset_name")
    info.set_defaults(run=_info)

    download = data.add_parser("download", help="fetch one that its owners let anyone download")
    download.add_argument("dataset_name")
    download.add_argument("dataset_dir", type=Path)
    download.set_defaults(run=_download)

    verify = with_dataset(data, "verify", "open every file and name every defect; exit status 1 if there is one")
    verify.add_argument("--all_notes", action="store_true", help=f"show more than {_SHOWN_NOTES} notes")
    verify.set_defaults(run=_verify)

    prepare = with_dataset(data, "prepare", "write a MONAI datalist")
    prepare.add_argument("--out", type=Path, required=True, help="JSON file to write")
    prepare.set_defaults(run=_prepare)

    preview = with_dataset(data, "preview", "draw a contact sheet with outlines of the masks")
    preview.add_argument("--out", type=Path, required=True, help="PNG file to write")
    preview.add_argument("--split", default="training", choices=["training", "validation", "test"])
    preview.add_argument("--count", type=int, default=20, help="number of images, evenly over the split")
    preview.set_defaults(run=_preview)


def with_dataset(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    """A subcommand that takes a data set by name and folder, with what chooses of it."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=help_text)
    command.add_argument("dataset_name", help="see `topolora data list`, or folder")
    command.add_argument("dataset_dir", type=Path, help="its folder, or a list file")
    command.add_argument("--split_scheme", help="one of those that `topolora data info` names")
    command.add_argument("--annotator", help="likewise")
    command.add_argument("--folds", type=int, help="of a folder: cross-validation in so many parts")
    command.add_argument("--fold", type=int, help="which part is for test")
    command.add_argument("--group_pattern", help="of a folder: regular expression for what must not be divided")
    command.add_argument("--classes", nargs="+", metavar="NAME", help="of a folder: its classes, the background first")
    command.add_argument("--ignore", type=int, help="of a folder: value in masks of what nobody annotated")
    command.add_argument("--allow_partial", action="store_true", help="accept a part of a public data set")
    return command


def open_named(options: argparse.Namespace) -> SegmentationData:
    """The data set that such a subcommand was given."""
    from topolora_monai.data import open_dataset  # noqa: PLC0415 - importing torch takes seconds

    keys = ("split_scheme", "annotator", "folds", "fold", "group_pattern", "classes", "ignore")
    given = {key: getattr(options, key) for key in keys}
    partial = options.allow_partial or None
    return open_dataset(options.dataset_name, options.dataset_dir, allow_partial=partial, **given)


def _benchmark(name: str) -> type[Benchmark]:
    from topolora_monai.data import BENCHMARKS  # noqa: PLC0415

    if name not in BENCHMARKS:
        raise unknown_choice("data set", name, BENCHMARKS)
    return BENCHMARKS[name]


def _list(options: argparse.Namespace) -> int:
    from topolora_monai.data import BENCHMARKS  # noqa: PLC0415

    table = new_table("name", "title", "images", "size", "classes", "kind", "access")
    for name, kind in BENCHMARKS.items():
        facts = kind.facts
        published = next(iter(facts.counts.values()))
        free = bool(facts.archives) and all(archive.url and archive.sha256 for archive in facts.archives)
        table.add_row(
            name,
            facts.title,
            str(sum(published)) if published else "?",
            facts.size,
            ", ".join(facts.classes[1:]),
            facts.modality,
            "download" if free else "by hand",
        )
    show_table(table)
    return 0


def _info(options: argparse.Namespace) -> int:
    kind = _benchmark(options.dataset_name)
    facts = kind.facts
    print(f"{facts.title}\n\n{(kind.__doc__ or '').strip()}\n")
    for scheme, counts in facts.counts.items():
        shown = "not published" if counts is None else "{} training, {} validation, {} test".format(*counts)
        print(f"split_scheme {scheme}: {shown}")
    rows = {
        "annotators": ", ".join(facts.annotators),
        "classes": ", ".join(facts.classes),
        "layout": facts.layout,
        "licence": facts.licence,
        "citation": facts.citation,
        "homepage": facts.homepage,
        "access": facts.access,
    }
    for name, value in rows.items():
        print(f"{name}: {value}")
    return 0


def _download(options: argparse.Namespace) -> int:
    kind = _benchmark(options.dataset_name)
    data = kind(options.dataset_dir, download=True)
    counts = ", ".join(f"{len(data.items(split))} {split}" for split in ("training", "validation", "test"))
    print(f"{kind.facts.title} is in {data.root}: {counts}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from topolora_monai.data import Benchmark, verify  # noqa: PLC0415

    data = open_named(options)
    legal = isinstance(data, Benchmark) and data.facts.blank_is_legal
    result = verify(data, blank_is_legal=legal, progress=True)
    show_table(_split_table(result))
    _print_findings(result, options.all_notes)
    described = data.describe()
    part = f" (a part: {described['partial']})" if "partial" in described else ""
    print(f"{options.dataset_name}{part}: {'passed' if result.passed else 'FAILED'}")
    return 0 if result.passed else 1


def _split_table(result: Verification) -> Table:
    table = new_table("split", "images", "sizes (width x height)", "foreground", "defects", "notes")
    for split, facts in result.splits.items():
        kinds = [finding.kind for finding in result.findings if finding.split == split]
        table.add_row(
            split,
            str(facts.images),
            _sizes(facts),
            f"{sum(facts.foreground) / len(facts.foreground):.1%}" if facts.foreground else "",
            str(kinds.count("defect")),
            str(kinds.count("note")),
        )
    return table


def _sizes(facts: SplitFacts) -> str:
    if not facts.sizes:
        return ""
    (low_h, low_w), (high_h, high_w) = min(facts.sizes), max(facts.sizes)
    smallest = f"{low_w}x{low_h}"
    return smallest if len(facts.sizes) == 1 else f"{smallest} to {high_w}x{high_h}, {len(facts.sizes)} different"


def _print_findings(result: Verification, all_notes: bool) -> None:
    defects = [finding for finding in result.findings if finding.kind == "defect"]
    notes = [finding for finding in result.findings if finding.kind == "note"]
    for finding in defects:
        print(f"defect in {finding.split}: {_named(finding.path, finding.message)}")
    shown = notes if all_notes else notes[:_SHOWN_NOTES]
    for finding in shown:
        print(f"note in {finding.split}: {_named(finding.path, finding.message)}")
    if len(shown) < len(notes):
        print(f"... and {len(notes) - len(shown)} more notes: --all_notes shows them")


def _named(path: str, message: str) -> str:
    return message if path in message else f"{message}: {path}"


def _prepare(options: argparse.Namespace) -> int:
    from topolora_monai.data import SPLITS  # noqa: PLC0415
    from topolora_monai.io.atomic import writing  # noqa: PLC0415
    from topolora_monai.io.json_files import write_json  # noqa: PLC0415

    data = open_named(options)
    content: dict[str, Any] = {**data.describe(), "labels": list(data.classes)}
    content |= {split: _entries(data.items(split)) for split in SPLITS}
    with writing(options.out, "the datalist", "choose another --out"):
        options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_json(content, options.out)
    print(f"written to {options.out}: " + ", ".join(f"{len(content[split])} {split}" for split in SPLITS))
    return 0


def _entries(items: list[Item]) -> list[dict[str, Any]]:
    """Files of each item; a volume is one entry, however many slices it has."""
    kept = ("image", "label", "fov", "second_label", "group")
    entries = [{key: value for key, value in item.items() if key in kept} for item in items]
    return [entry for number, entry in enumerate(entries) if number == 0 or entry != entries[number - 1]]


def _preview(options: argparse.Namespace) -> int:
    from topolora_monai.data import contact_sheet  # noqa: PLC0415
    from topolora_monai.io.atomic import atomic_write, writing  # noqa: PLC0415

    if options.count < 1:
        raise ConfigError("count must be at least 1", found=options.count)
    data = open_named(options)
    items = data.items(options.split)
    step = max(1, len(items) // options.count)
    chosen = items[::step][: options.count]
    if not chosen:
        raise ConfigError(f"no image in {options.split}", hint="choose another --split")
    sheet = contact_sheet([(item["name"], _drawn(item, data)) for item in chosen])
    with writing(options.out, "the contact sheet", "choose another --out"):
        options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.out) as beside:
            sheet.save(beside, format="PNG")
    print(f"{len(chosen)} of {len(items)} {options.split} images drawn in {options.out}")
    return 0


def _drawn(item: Item, data: SegmentationData) -> Any:
    from topolora_monai.data import overlay  # noqa: PLC0415
    from topolora_monai.transforms import IntensityScaling, LoadItem  # noqa: PLC0415

    load = LoadItem(data.channels, IntensityScaling(pixel_values=data.pixel_values), data.label_values)
    sample = load(item)
    return overlay(sample["image"].numpy(), sample["label"].numpy()[0], sample["fov"].numpy()[0] > 0)
