"""``topolora data``: list, describe, download, verify, prepare and preview data sets; ``topolora plan``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topolora_monai.cli.common import add_command, show_table
from topolora_monai.errors import ConfigError, unknown_choice

if TYPE_CHECKING:
    from topolora_monai.data import Benchmark, Item, SegmentationData, Verification

_SHOWN_NOTES = 20


def add_commands(commands: Any) -> None:
    """Add the subcommands to a parser."""
    group = commands.add_parser("data", help="list, describe, download, verify, prepare and preview data sets")
    data = group.add_subparsers(required=True, metavar="command")

    add_command(data, "list", _list, "the public data sets that are known by name")

    info = add_command(data, "info", _info, "size, splits, terms and citation of one")
    info.add_argument("dataset_name")

    download = add_command(data, "download", _download, "fetch one that its owners let anyone download")
    download.add_argument("dataset_name")
    download.add_argument("dataset_dir", type=Path)

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

    plan = with_dataset(commands, "plan", "measure a training split, and write the settings that fit it")
    plan.add_argument("--network_name", default="vit_b", help="network to train; vit_b if not given")
    plan.add_argument("--out", type=Path, help="YAML file to write, to be edited and given to the training")
    plan.set_defaults(run=_plan)


def with_dataset(commands: Any, name: str, about: str) -> argparse.ArgumentParser:
    """A subcommand that takes a data set by name and folder, with what chooses of it; see :func:`open_named`."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=about)
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


def _list(options: argparse.Namespace) -> None:
    from topolora_monai.data import BENCHMARKS  # noqa: PLC0415

    rows = []
    for name, kind in BENCHMARKS.items():
        facts = kind.facts
        published = next(iter(facts.counts.values()))
        images = sum(published) if published else "?"
        free = facts.archives and all(archive.url and archive.sha256 for archive in facts.archives)
        classes, access = ", ".join(facts.classes[1:]), "download" if free else "by hand"
        rows.append((name, facts.title, images, facts.size, classes, facts.modality, access))
    show_table(("name", "title", "images", "size", "classes", "kind", "access"), rows)


def _info(options: argparse.Namespace) -> None:
    kind = _benchmark(options.dataset_name)
    facts = kind.facts
    print(f"{facts.title}\n\n{(kind.__doc__ or '').strip()}\n")
    for scheme, counts in facts.counts.items():
        shown = "not published" if counts is None else "{} training, {} validation, {} test".format(*counts)
        print(f"split_scheme {scheme}: {shown}")
    for name in ("annotators", "classes", "layout", "licence", "citation", "homepage", "access"):
        value = getattr(facts, name)
        print(f"{name}: {value if isinstance(value, str) else ', '.join(value)}")


def _download(options: argparse.Namespace) -> None:
    kind = _benchmark(options.dataset_name)
    data = kind(options.dataset_dir, download=True)
    counts = ", ".join(f"{len(data.items(split))} {split}" for split in ("training", "validation", "test"))
    print(f"{kind.facts.title} is in {data.root}: {counts}")


def _verify(options: argparse.Namespace) -> int:
    from topolora_monai.data import Benchmark, verify  # noqa: PLC0415

    data = open_named(options)
    legal = isinstance(data, Benchmark) and data.facts.blank_is_legal
    result = verify(data, blank_is_legal=legal, progress=True)
    _show_splits(result)
    _print_findings(result, options.all_notes)
    described = data.describe()
    part = f" (a part: {described['partial']})" if "partial" in described else ""
    print(f"{options.dataset_name}{part}: {'passed' if result.passed else 'FAILED'}")
    return 0 if result.passed else 1


def _show_splits(result: Verification) -> None:
    rows = []
    for split, facts in result.splits.items():
        kinds = [finding.kind for finding in result.findings if finding.split == split]
        sizes = [f"{width}x{height}" for height, width in sorted(facts.sizes)]
        shown = f"{sizes[0]} to {sizes[-1]}, {len(sizes)} different" if len(sizes) > 1 else "".join(sizes)
        foreground = f"{sum(facts.foreground) / len(facts.foreground):.1%}" if facts.foreground else ""
        rows.append((split, facts.images, shown, foreground, kinds.count("defect"), kinds.count("note")))
    show_table(("split", "images", "sizes (width x height)", "foreground", "defects", "notes"), rows)


def _print_findings(result: Verification, all_notes: bool) -> None:
    defects, notes = ([one for one in result.findings if one.kind == kind] for kind in ("defect", "note"))
    shown = notes if all_notes else notes[:_SHOWN_NOTES]
    for one in [*defects, *shown]:
        message = one.message if one.path in one.message else f"{one.message}: {one.path}"
        print(f"{one.kind} in {one.split}: {message}")
    if len(shown) < len(notes):
        print(f"... and {len(notes) - len(shown)} more notes: --all_notes shows them")


def _prepare(options: argparse.Namespace) -> None:
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


def _entries(items: list[Item]) -> list[dict[str, Any]]:
    """Files of each item; a volume is one entry, however many slices it has."""
    kept = ("image", "label", "fov", "second_label", "group")
    entries = [{key: value for key, value in item.items() if key in kept} for item in items]
    return [entry for number, entry in enumerate(entries) if number == 0 or entry != entries[number - 1]]


def _preview(options: argparse.Namespace) -> None:
    from topolora_monai.data import contact_sheet, overlay  # noqa: PLC0415
    from topolora_monai.io.atomic import atomic_write, writing  # noqa: PLC0415
    from topolora_monai.transforms import IntensityScaling, LoadItem  # noqa: PLC0415

    if options.count < 1:
        raise ConfigError("count must be at least 1", found=options.count)
    data = open_named(options)
    items = data.items(options.split)
    step = max(1, len(items) // options.count)
    chosen = items[::step][: options.count]
    if not chosen:
        raise ConfigError(f"no image in {options.split}", hint="choose another --split")
    load = LoadItem(data.channels, IntensityScaling(pixel_values=data.pixel_values), data.label_values)
    drawn = []
    for sample in map(load, chosen):
        image, label, fov = (sample[key].numpy() for key in ("image", "label", "fov"))
        drawn.append((sample["name"], overlay(image, label[0], fov[0] > 0)))
    with writing(options.out, "the contact sheet", "choose another --out"):
        options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(options.out) as beside:
            contact_sheet(drawn).save(beside, format="PNG")
    print(f"{len(chosen)} of {len(items)} {options.split} images drawn in {options.out}")


def _plan(options: argparse.Namespace) -> None:
    from topolora_monai.planning import plan, plan_text, write_plan  # noqa: PLC0415 - loads torch

    fitted = plan(open_named(options), options.network_name)
    if options.out is None:
        print(plan_text(fitted), end="")
        return
    write_plan(fitted, options.out)
    crops = f"crops of {fitted.crop_size} px at {fitted.image_size} px"
    print(f"written to {options.out}: {crops}, {fitted.sampling} sampling")
