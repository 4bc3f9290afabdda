"""From the source bundle's configuration to that of one trained network."""

from __future__ import annotations

import ast
import copy
import re
from typing import Any

__all__ = ["inference_config", "metadata"]

_FROM_RUN = ("header", "adapter", "weights", "adaptation")
"""Ids that only make sense beside a run."""
_FROM_HEADER = re.compile(r"\$@header(?:\['(?P<name>\w+)'\]|\.get\('(?P<optional>\w+)', (?P<default>.+)\))")
_KEEPING_KEYS = "$[lambda item: {**item, **monai.transforms.Compose(@loading)(item)}]"
"""Applications find what they added to an item again."""
_MODEL = "$@bundle_root + '/models/model.pt'"


def inference_config(source: dict[str, Any], header: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """Values in place of what was read from the adapter file, the merged network in place of base and adapter.

    ``postprocessing`` gives masks of columns by rows, as MONAI's own loaders give images and as applications that read
    this file alone expect; the bundle's own run keeps probabilities under ``probability_postprocessing``.

    Args:
        source: the source bundle's ``inference.yaml``.
        header: of the adapter file.
        network: arguments of :func:`~topolora_monai.networks.build_network` but the weights.
    """
    config = {key: value for key, value in copy.deepcopy(source).items() if key not in _FROM_RUN}
    config["imports"] = [*config["imports"], "$import topolora_monai.metrics", "$import topolora_monai.release"]
    for key, value in config.items():
        read = _FROM_HEADER.fullmatch(value) if isinstance(value, str) else None
        if read:
            name, default = read["name"] or read["optional"], read["default"]
            config[key] = header.get(name, ast.literal_eval(default)) if default else header[name]
    config["model"] = _MODEL
    config["network_def"] = {
        "_target_": "topolora_monai.release.merged_network",
        "adaptation": header["adaptation"],
        **{name: f"@{name}" for name in network},
    }
    config["network"] = "$topolora_monai.release.load_model(@network_def, @model).to(@device)"
    config["preprocessing"]["transforms"] = _KEEPING_KEYS
    config["probability_postprocessing"] = config["postprocessing"]
    config["postprocessing"] = {
        "_target_": "Compose",
        "transforms": [*config["postprocessing"]["transforms"], *_to_mask(header)],
    }
    config["evaluator"]["postprocessing"] = "@probability_postprocessing"
    scenes = config["scene_segmenter"]
    scenes["fingerprint"] = scenes["fingerprint"].replace("@adapter", "@model")
    return config


def _to_mask(header: dict[str, Any]) -> list[dict[str, Any]]:
    """Transforms from probabilities to a mask of class numbers, or to one mask a class where classes overlap."""
    if header["out_channels"] > 1 and header.get("activation") == "softmax":
        stored = "topolora_monai.metrics.to_16_bit(p).cpu().numpy()"
        numbers = f"$lambda p: torch.from_numpy(topolora_monai.metrics.class_indices({stored}))"
        return [{"_target_": "Lambdad", "keys": "pred", "func": numbers}, _columns_first(1, 0)]
    transforms: list[dict[str, Any]] = [
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": "@threshold"},
        {"_target_": "CastToTyped", "keys": "pred", "dtype": "$torch.uint8"},
    ]
    if header["out_channels"] == 1:
        return [*transforms, {"_target_": "SqueezeDimd", "keys": "pred", "dim": 0}, _columns_first(1, 0)]
    return [*transforms, _columns_first(0, 2, 1)]


def _columns_first(*axes: int) -> dict[str, Any]:
    return {"_target_": "Transposed", "keys": "pred", "indices": list(axes)}


def metadata(source: dict[str, Any], name: str, header: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The source bundle's metadata with the task, labels, pixel scale and scores of a run.

    Args:
        source: content of the source bundle's ``metadata.json``.
        name: of the new bundle.
        header: of the adapter file.
        record: the run's ``evaluation/summary.json``.
    """
    described = copy.deepcopy(source)
    labels = dict(enumerate(header["labels"]))
    test = record["test"]
    described["name"] = name
    described["changelog"] = {source["version"]: f"released from a run of {header['network_name']}"}
    described["task"] = f"Segmentation of {', '.join(header['labels'][1:])}"
    known = {"Dice": test.get("dice"), "clDice": test.get("cldice")}
    shown = [f"{title} {score:.3f}" for title, score in known.items() if score is not None]
    described["description"] = (
        f"{header['network_name']} adapted by {header['adaptation']['preset']} to {header['dataset']}: a prompt-free"
        f" segmenter of {', '.join(header['labels'][1:])}." + (f" Test {', '.join(shown)}." if shown else "")
    )
    described["data_source"] = header["dataset"] + (f" ({header['partial']})" if "partial" in header else "")
    described["label_classes"] = ", ".join(f"{number} {label}" for number, label in labels.items())
    described["eval_metrics"] = {key: value for key, value in test.items() if isinstance(value, float)}
    described["pixel_scale"] = header["image_size"] / header["crop_size"]
    described["eval_metrics"] |= {
        f"{score}_{label}": value
        for label, scores in test.get("classes", {}).items()
        for score, value in scores.items()
        if value is not None
    }
    described |= {"threshold": header["threshold"], "temperature": header.get("temperature", 1.0)}
    data_format = described["network_data_format"]
    channels = header["in_channels"]
    image = data_format["inputs"]["image"]
    image["num_channels"] = channels
    if channels != len(image["channel_def"]):
        image["channel_def"] = {str(number): f"channel {number}" for number in range(channels)}
        image["format"] = "magnitude"
        image["modality"] = "n/a"
    pred = data_format["outputs"]["pred"]
    pred["num_channels"] = header["out_channels"]
    if header["out_channels"] > 1:
        described["pred_classes"] = f"one logit map for each of {', '.join(header['labels'][1:])}"
    pred["channel_def"] = {str(number): label for number, label in labels.items()}
    return described
