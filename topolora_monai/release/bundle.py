"""Freezing a run into a self-contained MONAI bundle."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from topolora_monai.adapters import read_spec
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.io.json_files import read_json
from topolora_monai.model.network import MODEL_FILE, WEIGHTS_FILE, adapted_network
from topolora_monai.packaged import bundle_folder
from topolora_monai.release.card import model_card
from topolora_monai.release.configs import inference_config, metadata
from topolora_monai.spec import ModelSpec

__all__ = ["release"]


def release(
    run: str | Path, out: str | Path, weights: str | Path | None = None, source_bundle: str | Path | None = None
) -> Path:
    """Write a bundle that needs neither the run's folder nor the base checkpoint.

    It holds ``models/model.pt`` (the merged network, whole, since MONAI Label loads without checking),
    ``models/model.json`` (what the model is, which the configuration reads), the adapter under ``models/adapters``,
    ``configs/inference.yaml`` and ``metadata.json``, a model card and the licences.

    Args:
        run: folder of a run that has finished and was evaluated.
        out: folder of the new bundle; must not exist yet.
        weights: the base checkpoint the run started from; None if it started from random weights.
        source_bundle: bundle that the run was made with; the package's own by default.

    Returns:
        The new folder, absolute.

    Raises:
        DataError: if a part of the run is missing or damaged.
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
    record = read_json(run / "evaluation" / "summary.json", "evaluate the run first")
    state = adapted_network(adapter, weights).state_dict()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            _write(beside, out.name, source, adapter, spec, record, state)
            beside.chmod(0o755)
            os.replace(beside, out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            "cannot write the bundle",
            path=out,
            found=error.strerror or error,
            hint="free some space, or choose another --out",
        ) from error
    return out


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
    (folder / "docs/README.md").write_text(model_card(name, spec, record))
    (folder / "docs/data_license.txt").write_text(_data_licence(spec))


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    try:
        torch.save({key: tensor.cpu().contiguous() for key, tensor in state.items()}, path)
    except RuntimeError as error:  # as which torch tells of a full disk
        raise OSError(f"{path.name} cannot be written") from error


def _data_licence(spec: ModelSpec) -> str:
    from topolora_monai.data import BENCHMARKS  # noqa: PLC0415 - only here

    name = spec.dataset
    if name not in BENCHMARKS:
        return f"Trained on {name or 'data that nothing is known of'}: images of the user's own, whose terms apply.\n"
    facts = BENCHMARKS[name].facts
    return f"Trained on {facts.title}.\nTerms: {facts.licence}.\nCite: {facts.citation}.\nFrom: {facts.homepage}\n"
