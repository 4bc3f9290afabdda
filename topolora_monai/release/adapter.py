"""Making a trained adapter one that comes with the package."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from topolora_monai.adapters import ReleasedAdapter, read_spec, released_adapters
from topolora_monai.adapters.files import read_adapter_tensors, write_adapter
from topolora_monai.adapters.released import FOLDER, INDEX_FILE, halved
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.io.atomic import writing
from topolora_monai.io.download import file_sha256
from topolora_monai.io.json_files import write_json
from topolora_monai.release.bundle import evaluation_record
from topolora_monai.release.card import adapter_card
from topolora_monai.release.configs import data_facts
from topolora_monai.spec import ModelSpec
from topolora_monai.weights import KNOWN_CHECKPOINTS

MOST_BYTES = 8_000_000
"""Of all adapters that come with the package, together."""


def release_adapter(
    run: str | Path, name: str, licence: str, data: str | None = None, folder: str | Path | None = None
) -> ReleasedAdapter:
    """Add a run's adapter to those that come with the package: in 16 bits, with a card, under a name.

    Args:
        run: folder of a run that has finished and was evaluated.
        name: lower-case letters, digits and underscores.
        licence: of the adapter, which the data's terms have to allow.
        data: trained on, with its terms and citation; of a known data set these are known.
        folder: that holds the released adapters; the package's own by default.

    Raises:
        ConfigError: for a name that is none, a base that nobody could find, or data that nothing is known of.
        DataError, AdapterFileError: if a part of the run is missing or damaged, or it was never evaluated.
        OutputError: if there is one of that name, if all together would be too large, or if it cannot be written.
    """
    run, folder = Path(run), FOLDER if folder is None else Path(folder)
    if not re.fullmatch("[a-z][a-z0-9_]{1,60}", name):
        raise ConfigError("no name for an adapter", expected="lower-case letters, digits and _", found=repr(name))
    known = released_adapters(folder)
    if name in known:
        raise OutputError("there is an adapter of that name", path=known[name].path, hint="choose another name")
    file = run / "adapter.safetensors"
    spec = read_spec(file)
    record = evaluation_record(run / "evaluation" / "summary.json")
    state, change = halved(read_adapter_tensors(file), file)
    taken = sum(one.path.stat().st_size for one in known.values())
    size = sum(tensor.nbytes for tensor in state.values())
    if taken + size > MOST_BYTES:
        raise OutputError(
            "the package would become too large",
            path=folder,
            expected=f"at most {MOST_BYTES / 1e6:.0f} MB of adapters",
            found=f"{taken / 1e6:.2f} MB, and {size / 1e6:.2f} MB more",
            hint="train fewer parameters (`topolora params --list`), or take another adapter out",
        )
    added = ReleasedAdapter(name, "", spec.network_name, _base(spec), licence, data or _terms(spec), folder)
    with writing(folder, "the adapter", "give --folder one where you may write"):
        folder.mkdir(parents=True, exist_ok=True)
        write_adapter(state, spec, added.path)
        added = dataclasses.replace(added, sha256=file_sha256(added.path))
        added.card.write_text(adapter_card(added, spec, record, change), encoding="utf-8")
        write_json({one.name: one.entry() for one in (*known.values(), added)}, folder / INDEX_FILE)
    return added


def _base(spec: ModelSpec) -> str | None:
    base = KNOWN_CHECKPOINTS.get(spec.checkpoint or "")
    if spec.pretrained and (base is None or not (base.url and base.sha256)):
        raise ConfigError(
            "nobody could find the adapter's base by its name",
            expected="one that `topolora weights fetch` downloads",
            found=spec.checkpoint or "a file of no known checkpoint",
            hint="train on one of `topolora weights list`",
        )
    return spec.checkpoint


def _terms(spec: ModelSpec) -> str:
    facts = data_facts(spec)
    if facts is None:
        raise ConfigError(
            "nothing is known of the data that the adapter was trained on",
            found=spec.dataset or "no data set",
            hint="give --data a sentence with their name, terms and citation",
        )
    return f"{facts.title}: {facts.licence}. {facts.citation}. {facts.homepage}"
