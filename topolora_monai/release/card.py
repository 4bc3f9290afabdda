"""The model card of a released bundle, filled from its run."""

import re
from collections.abc import Iterable
from typing import Any

from topolora_monai.adapters import ReleasedAdapter
from topolora_monai.release.configs import data_facts
from topolora_monai.spec import ModelSpec
from topolora_monai.weights import KNOWN_CHECKPOINTS

NEEDED = ("trainable", "epochs", "seconds", "peak_memory_bytes", "hardware", "commit", "command", "seed", "test")
"""Entries of a run's ``evaluation/summary.json`` that the card tells."""
GROUP_SCORES = ("dice", "cldice", "betti_0_error")
"""What it tells of groups of test images."""

_SCORES = ("dice", "iou", "precision", "recall", "auc", "cldice")
_ABSOLUTE = re.compile(r"(?<![^\s'\"=])/(?:[^\s'\"/]+/)+")
"""Folders that files had on the machine of the training, which is nobody's concern."""


def model_card(name: str, spec: ModelSpec, record: dict[str, Any], references: Iterable[str] = ()) -> str:
    """Markdown for whoever considers using the bundle, under the headings that MONAI's model zoo has.

    Args:
        name: of the bundle.
        spec: of the model.
        record: the run's ``evaluation/summary.json``, with the entries of :data:`NEEDED`.
        references: works that the bundle rests on; that of a known data set is added.
    """
    return f"""# Model Overview
{_overview(name, spec)}

{_about(spec, record, "Terms and citation of the data: `docs/data_license.txt`.")}

## MONAI Bundle Commands
In this folder, or with `--bundle_root`, where the packages of `configs/metadata.json` are installed.
`models/model.pt` holds the tensors of the whole network and `models/model.json` what it is; if the former is not here,
`python -m monai.bundle download_large_files` fetches what `large_files.yml` names.

#### Execute inference:

    python -m monai.bundle run inferring --config_file configs/inference.yaml --input FOLDER --output_dir masks

#### Export checkpoint to TorchScript:
It is traced for tiles of {spec.crop_size} px; images of another size raise an error in it.

    python -m monai.bundle ckpt_export --config_file configs/inference.yaml

# References
{_references(spec, references)}

# License
The bundle: Apache-2.0, see `LICENSE`. The data: see `docs/data_license.txt`. The base checkpoint: its own terms.
"""


def adapter_card(adapter: ReleasedAdapter, spec: ModelSpec, record: dict[str, Any], change: float) -> str:
    """Markdown for whoever considers using an adapter that comes with the package.

    Args:
        adapter: what the package's list says of it.
        spec: of the model.
        record: as of :func:`model_card`.
        change: of a tensor by rounding to 16 bits, the largest, as a share of its norm.
    """
    base = KNOWN_CHECKPOINTS.get(adapter.checkpoint or "")
    weights = (
        f"{base.name} ({base.licence}; {base.citation}), downloaded when it is first needed"
        if base
        else f"random weights of seed {spec.seed}"
    )
    return f"""# {_verbatim(adapter.name)}
{_overview(adapter.name, spec)}

    topolora predict photo.jpg --adapter {adapter.name}

Its base is {_verbatim(spec.network_name)} with {weights}.

{_about(spec, record, _verbatim(adapter.data))}
- Scores are those of its 32-bit numbers; rounding to 16 bits changed no tensor by more than {change:.1g} of its norm.

## License
The adapter: {_verbatim(adapter.licence)}. The base: its own terms, as above.
"""


def _overview(name: str, spec: ModelSpec) -> str:
    return f"""**{_verbatim(name)}** segments {_verbatim(", ".join(spec.labels[1:]))} in 2-D images, without prompts. \
{_verbatim(spec.network_name)}, adapted by
{_verbatim(spec.preset)} of topolora_monai {_verbatim(spec.package_version)}.

For research. Not a medical device; not for clinical decisions."""


def _about(spec: ModelSpec, record: dict[str, Any], terms: str) -> str:
    return f"""## Data
{_data(spec, record)}

{terms}

### Preprocessing
Values in [0, 1]{_scaling(spec)}{_filters(spec)}.
One pixel of the image becomes {spec.pixel_scale:.2f} in the network: tiles of
{spec.crop_size} px are enlarged to {spec.image_size} px.
{_other_scales(spec)}

## Training configuration
{_training(record)}

### Input
{spec.in_channels} channels; images of any size, taken in overlapping tiles of {spec.crop_size} px.

### Output
{_output(spec)}
{_decision(spec)}

## Performance
{_table(record)}

Overlap scores are pooled over the pixels of all test images inside the field of view at native size; clDice is the mean
over images on exact skeletons.{_by_group(record)}

### Limits
- Measured on {_dataset(spec)} alone: other cameras, resolutions and populations need a validation of their own.
- One training run, seed {record["seed"]}; no interval over repetitions.
- Outside of images of the kind it was trained on it answers all the same."""


def _other_scales(spec: ModelSpec) -> str:
    known = {"fields of view": spec.view_diameter, "the thinnest structures": spec.thickness}
    told = ", ".join(f"{what} were {pixels:.3g} px across" for what, pixels in known.items() if pixels)
    if not told or spec.protocol != "native":
        return "Images of another resolution should be resampled to that of the training images first."
    return f"In training {told}. For images of another pixel scale give `--match_scale`."


def _verbatim(text: str) -> str:
    """Text of a file as Markdown shows it: no mark-up, no cells of a table."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", text)


def _dataset(spec: ModelSpec) -> str:
    return _verbatim(spec.dataset or "data that nothing is known of")


def _data(spec: ModelSpec, record: dict[str, Any]) -> str:
    scored = record.get("evaluated_on", {"dataset": spec.dataset})
    split = f", split {_verbatim(spec.split_scheme)}" if spec.split_scheme else ""
    part = f" **Only a part of it: {_verbatim(spec.partial)}.**" if spec.partial else ""
    return f"Trained on {_dataset(spec)}{split}; tested on {_verbatim(str(scored['dataset']))}.{part}"


def _scaling(spec: ModelSpec) -> str:
    if spec.pixel_values == "linear":
        return ""
    limits = list(spec.value_range) if spec.value_range else f"percentiles {list(spec.percentiles)} of each scene"
    return f", from {spec.pixel_values} between {limits}"


def _filters(spec: ModelSpec) -> str:
    equalised = "; the green channel equalised by CLAHE" if spec.clahe else ""
    return equalised + (f"; the refined Lee filter for {spec.despeckle_looks} looks" if spec.despeckle_looks else "")


def _output(spec: ModelSpec) -> str:
    maps = ", ".join(_verbatim(label) for label in spec.labels[1:])
    return f"Of the network, logits at the image's size, a map for each of: {maps}. Of inference, masks."


def _references(spec: ModelSpec, references: Iterable[str]) -> str:
    facts = data_facts(spec)
    cited = [*references, *([facts.citation] if facts else [])]
    return "\n".join(f"{number}. {_verbatim(one)}" for number, one in enumerate(cited, start=1)) or "None given."


def _decision(spec: ModelSpec) -> str:
    if spec.exclusive:
        return "Each pixel is of its most probable class; `NAME_mask.png` holds the numbers that `classes.json` names."
    decision = f"Threshold {spec.threshold:.3f}, chosen on validation by {spec.threshold_by}."
    if spec.temperature != 1.0:
        decision += f" Logits are divided by {spec.temperature:.3f} first, fitted there to calibrate probabilities."
    return decision


def _table(record: dict[str, Any]) -> str:
    test = record["test"]
    names = [name for name in _SCORES if name in test]
    rows = [names, ["---"] * len(names), [_shown(test[name]) for name in names]]
    if "classes" in test:
        rows = [["", *names], ["---"] * (len(names) + 1), ["mean", *rows[2]]]
        rows += [[_verbatim(label), *(_shown(of[name]) for name in names)] for label, of in test["classes"].items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _by_group(record: dict[str, Any]) -> str:
    """A table of the groups that the test images are divided into, by means over images."""
    if not record.get("groups"):
        return ""
    head = ["group", "images", *GROUP_SCORES]
    rows = [head, ["---"] * len(head)]
    for name, of in record["groups"].items():
        rows.append([_verbatim(name), str(of["images"]), *(_shown(of.get(score)) for score in GROUP_SCORES)])
    return "\n\nBy groups of test images, means over images:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def _training(record: dict[str, Any]) -> str:
    memory = record["peak_memory_bytes"] / 1e9
    command = _ABSOLUTE.sub("", record["command"])
    return (
        f"{record['trainable']:,} trainable parameters, {record['epochs']} epochs, {record['seconds'] / 60:.0f} min,"
        f" {memory:.1f} GB, on {record['hardware']}.\nCommit {record['commit']}. Command:\n\n    {command}"
    )
