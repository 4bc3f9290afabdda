"""Released bundles as models: what their inference configuration says, without its files being written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from topolora_monai.errors import ConfigError

__all__ = ["Bundle", "bundle_labels", "load_bundle"]


class Bundle(NamedTuple):
    """A released bundle's network: its decision, and from an item to probabilities, (K, H, W), at native size."""

    threshold: float
    exclusive: bool
    automatic: Callable[[Mapping[str, Any]], NDArray[np.float32]]


def bundle_labels(folder: str | Path) -> list[str]:
    """Names of a released bundle's classes, the background first.

    Raises:
        ConfigError: if the folder holds no released bundle.
    """
    path = Path(folder) / "configs/inference.yaml"
    try:
        labels = yaml.safe_load(path.read_text())["classes"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError("not a released bundle", path=folder, hint="`topolora release` makes one") from error
    if not isinstance(labels, list):
        raise ConfigError("not a released bundle", path=folder, found="classes that only a run knows")
    return [str(label) for label in labels]


def load_bundle(folder: str | Path) -> Bundle:
    """The network of a released bundle, in memory.

    Raises:
        ConfigError: if the folder holds no released bundle.
        CheckpointError: if its weights are damaged.
    """
    bundle_labels(folder)
    parser = ConfigParser()
    parser.read_config(str(Path(folder) / "configs/inference.yaml"))
    parser["bundle_root"] = str(folder)
    parts = ("preprocessing", "network", "inferer", "probability_postprocessing", "device", "threshold", "activation")
    prepare, network, inferer, finish, device, threshold, activation = map(parser.get_parsed_content, parts)

    lock = threading.Lock()  # layers may keep results for one another

    def automatic(item: Mapping[str, Any]) -> NDArray[np.float32]:
        image = prepare(dict(item))["image"]
        with lock, torch.inference_mode():
            logits = inferer(image[None].to(device), network)
            probability = finish({"pred": logits[0]})["pred"]
        return np.asarray(torch.as_tensor(probability).float().cpu())

    return Bundle(float(threshold), activation == "softmax", automatic)
