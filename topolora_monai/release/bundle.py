"""Freezing a run into a self-contained MONAI bundle."""

import csv
import errno
import json
import os
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import yaml

from topolora_monai.adapters import read_spec
from topolora_monai.data import SyntheticVessels
from topolora_monai.errors import ConfigError, DataError, OutputError
from topolora_monai.io.atomic import folder_beside, writing
from topolora_monai.io.csv_cells import text_of
from topolora_monai.io.download import file_sha256
from topolora_monai.io.json_files import read_json
from topolora_monai.model.network import MODEL_FILE, WEIGHTS_FILE, adapted_network
from topolora_monai.packaged import bundle_folder
from topolora_monai.release.card import GROUP_SCORES, NEEDED, model_card
from topolora_monai.release.configs import data_facts, inference_config, metadata
from topolora_monai.spec import ModelSpec

_ZOO_LIMIT = 25_000_000
"""Bytes of the largest file that MONAI's model zoo takes in a pull request."""


def release(
    run: str | Path, out: str | Path, weights: str | Path | None = None, source_bundle: str | Path | None = None
) -> Path:
    """Write a bundle that needs neither the run's folder nor the base checkpoint.

    It holds ``models/model.pt`` (the merged network, whole, since MONAI Label loads without checking; tensors alone, in
    the format that MONAI's tools and model zoo read), ``models/model.json`` (what the model is, which the configuration
    reads), the adapter under ``models/adapters``, ``configs/inference.yaml`` and ``metadata.json``, a model card, the
    licences, and ``large_files.yml`` with the SHA-256 of what is too large for a pull request to the model zoo; whoever
    opens one fills in the addresses.

    Args:
        run: folder of a run that has finished and was evaluated.
        out: folder of the new bundle; must not exist yet.
        weights: the base checkpoint the run started from; None if it started from random weights.
        source_bundle: bundle that the run was made with; the package's own by default.

    Returns:
        The new folder, absolute.

    Raises:
        DataError: if a part of the run is missing or damaged, or it was never evaluated.
        AdapterFileError: if the adapter does not belong to ``weights``.
        ConfigError: if the source bundle is not there.
        OutputError: if ``out`` exists or cannot be written; nothing is left behind.
    """
    run, out = Path(run).absolute(), Path(out).absolute()
    source = Path(source_bundle).absolute() if source_bundle else bundle_folder()
    if not (source / "configs/inference.yaml").is_file():
        raise ConfigError(
            "source bundle not found", path=source, hint="give --source_bundle its folder in the source tree"
        )
    if out.exists():
        raise OutputError("the new bundle's folder exists already", path=out, hint="choose another --out")
    adapter = run / "adapter.safetensors"
    spec = read_spec(adapter)
    record = evaluation_record(run / "evaluation" / "summary.json")
    state = adapted_network(adapter, weights).state_dict()
    with writing(out, "the bundle", "choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(out) as beside:
            _write(beside, out.name, source, adapter, spec, record, state)
            os.replace(beside, out)
    return out


def evaluation_record(path: Path) -> dict[str, Any]:
    """A run's ``evaluation/summary.json`` with ``groups``; a :class:`DataError` if a card would lack something."""
    record = read_json(path, "evaluate the run first")
    missing = [name for name in NEEDED if name not in record]
    if missing:
        hint = "evaluate the folder that training wrote, with its training.json in it"
        raise DataError(
            "nothing is known of the training", path=path, expected=", ".join(missing), found="none of it", hint=hint
        )
    return {**record, "groups": _group_means(path.with_name("per_image.csv"))}


def _group_means(table: Path) -> dict[str, dict[str, float]]:
    """Images and mean scores of each group of test images; nothing where there are no groups."""
    groups: dict[str, list[dict[str, str]]] = {}
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("group"):
                    groups.setdefault(text_of(row["group"]), []).append(row)
    means: dict[str, dict[str, float]] = {}
    for name, rows in groups.items():
        known = {score: [float(row[score]) for row in rows if row.get(score)] for score in GROUP_SCORES}
        means[name] = {"images": len(rows)} | {score: fmean(values) for score, values in known.items() if values}
    return means


def _write(
    folder: Path,
    name: str,
    source: Path,
    adapter: Path,
    spec: ModelSpec,
    record: dict[str, Any],
    state: dict[str, torch.Tensor],
) -> None:
    for part in ("configs", "docs", "models/adapters"):
        (folder / part).mkdir(parents=True)
    _save(state, folder / WEIGHTS_FILE)
    (folder / MODEL_FILE).write_text(json.dumps(spec.to_header(), indent=2) + "\n")
    shutil.copy(adapter, folder / "models/adapters" / f"{name}.safetensors")
    config = inference_config(yaml.safe_load((source / "configs/inference.yaml").read_text()), spec)
    first_line = "# Segment a file, a folder or a glob of images:\n"
    command = "#   python -m monai.bundle run inferring --config_file configs/inference.yaml --input FOLDER\n"
    text = yaml.safe_dump(config, sort_keys=False, width=110)
    (folder / "configs/inference.yaml").write_text(first_line + command + text)
    source_metadata = json.loads((source / "configs/metadata.json").read_text())
    described = metadata(source_metadata, name, spec, record)
    (folder / "configs/metadata.json").write_text(json.dumps(described, indent=2) + "\n")
    shutil.copy(source / "configs/logging.conf", folder / "configs")
    shutil.copy(source / "LICENSE", folder)
    (folder / "docs/README.md").write_text(model_card(name, spec, record, source_metadata.get("references", ())))
    (folder / "docs/data_license.txt").write_text(_data_licence(spec))
    (folder / "large_files.yml").write_text(_large_files(folder))


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        torch.save({key: tensor.cpu().contiguous() for key, tensor in state.items()}, path)
    except RuntimeError as error:  # as which torch tells of a full disk
        raise OSError(errno.ENOSPC, f"{path.name} cannot be written") from error


def _data_licence(spec: ModelSpec) -> str:
    facts = data_facts(spec)
    if spec.dataset == SyntheticVessels.name:
        return "Trained on images that topolora_monai draws, free of any licence.\n"
    if facts is None:
        known = spec.dataset or "data that nothing is known of"
        return (
            f"Trained on {known}: images of the user's own, whose terms apply. State them here before passing it on.\n"
        )
    return f"Trained on {facts.title}.\nTerms: {facts.licence}.\nCite: {facts.citation}.\nFrom: {facts.homepage}\n"


def _large_files(folder: Path) -> str:
    large = {path for path in (folder / "models").rglob("*") if path.stat().st_size > _ZOO_LIMIT}
    entries = [
        {"path": path.relative_to(folder).as_posix(), "url": "", "hash_type": "sha256", "hash_val": file_sha256(path)}
        for path in sorted({folder / WEIGHTS_FILE, *large})
    ]
    first_line = "# Files that a pull request to the model zoo leaves out: upload them, and put their addresses here.\n"
    return first_line + yaml.safe_dump({"large_files": entries}, sort_keys=False)
