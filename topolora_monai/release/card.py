"""The model card of a released bundle, filled from its run."""

from __future__ import annotations

from typing import Any

__all__ = ["model_card"]

_SCORES = ("dice", "iou", "precision", "recall", "auc", "cldice")


def model_card(name: str, header: dict[str, Any], record: dict[str, Any]) -> str:
    """Markdown for whoever considers using the bundle.

    Args:
        name: of the bundle.
        header: of the adapter file.
        record: the run's ``evaluation/summary.json``, which repeats ``training.json``.
    """
    foreground = ", ".join(header["labels"][1:])
    scale = header["image_size"] / header["crop_size"]
    return f"""# {name}

Segments {foreground} in 2-D images, without prompts. {header["network_name"]}, adapted by
`{header["adaptation"]["preset"]}` of topolora_monai {header["package_version"]}.

## Use
    python -m monai.bundle run inferring --config_file configs/inference.yaml --input FOLDER --output_dir masks

Run it in this folder, or give `--bundle_root`. Needs `topolora_monai`; `models/model.pt` holds the whole network.

## Data
{_data(header, record)}

Input: {header["in_channels"]} channels, values in [0, 1]{_scaling(header)}.
One pixel of the image becomes {scale:.2f} in the network: tiles of
{header["crop_size"]} px are enlarged to {header["image_size"]} px.
Images of another resolution should be resampled to that of the training images first.

## Scores
{_table(record)}

{_decision(header)} Overlap scores are pooled over the pixels of all test images
inside the field of view at native size; clDice is the mean over images on exact skeletons.

## Training
{_training(record)}

## Limits
- Measured on {header["dataset"]} alone: other cameras, resolutions and populations need a validation of their own.
- One training run, seed {record["seed"]}; no interval over repetitions.
- Outside of images of the kind it was trained on it answers all the same.

## Intended use
Research. Not a medical device; not for clinical decisions.

## Licence
The bundle: Apache-2.0. The data: see `docs/data_license.txt`. The base checkpoint: its own terms.
"""


def _data(header: dict[str, Any], record: dict[str, Any]) -> str:
    scored = record.get("evaluated_on", {"dataset": header["dataset"]})
    split = f", split {header['split_scheme']}" if "split_scheme" in header else ""
    part = f" **Only a part of it: {header['partial']}.**" if "partial" in header else ""
    return f"Trained on {header['dataset']}{split}; tested on {scored['dataset']}.{part}"


def _scaling(header: dict[str, Any]) -> str:
    if header["pixel_values"] == "linear":
        return ""
    limits = header["value_range"] or f"percentiles {header['percentiles']} of each scene"
    return f", from {header['pixel_values']} between {limits}"


def _decision(header: dict[str, Any]) -> str:
    if header["out_channels"] > 1 and header.get("activation") == "softmax":
        return "Each pixel is of its most probable class; `NAME_mask.png` holds the numbers that `classes.json` names."
    decision = f"Threshold {header['threshold']:.3f}, chosen on validation by {header.get('threshold_by', 'dice')}."
    if header.get("temperature", 1.0) != 1.0:
        decision += (
            f" Logits are divided by {header['temperature']:.3f} first, fitted there to calibrate probabilities."
        )
    return decision


def _table(record: dict[str, Any]) -> str:
    test = record["test"]
    names = [name for name in _SCORES if name in test]
    rows = [names, ["---"] * len(names), [_shown(test[name]) for name in names]]
    if "classes" in test:
        rows = [["", *names], ["---"] * (len(names) + 1), ["mean", *rows[2]]]
        rows += [[label, *(_shown(of[name]) for name in names)] for label, of in test["classes"].items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _shown(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"


def _training(record: dict[str, Any]) -> str:
    memory = record["peak_memory_bytes"] / 1e9
    return (
        f"{record['trainable']:,} trainable parameters, {record['epochs']} epochs, {record['seconds'] / 60:.0f} min,"
        f" {memory:.1f} GB, on {record['hardware']}.\nCommit {record['commit']}. Command:\n\n    {record['command']}"
    )
