"""Released bundles as models: what their inference configuration says, without its files being written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from topolora_monai.adapters import read_spec
from topolora_monai.engines import check_finite
from topolora_monai.errors import ConfigError
from topolora_monai.metrics import check_threshold
from topolora_monai.model.network import MODEL_FILE

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
        AdapterFileError: if its description is damaged.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise ConfigError(
            "not a released bundle", path=folder, expected=MODEL_FILE, hint="`topolora release` makes one"
        )
    return list(read_spec(path).labels)


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
    parts = ("preprocessing", "network", "inferer", "postprocessing", "device", "threshold", "activation")
    prepare, network, inferer, finish, device, threshold, activation = map(parser.get_parsed_content, parts)

    lock = threading.Lock()  # layers may keep results for one another

    def automatic(item: Mapping[str, Any]) -> NDArray[np.float32]:
        image = prepare(dict(item))["image"]
        with lock, torch.inference_mode():
            logits = inferer(image[None].to(device), network)
            check_finite(logits, [str(item["image"])])
            probability = finish({"pred": logits[0]})["probability"]
        return np.asarray(torch.as_tensor(probability).float().cpu())

    return Bundle(check_threshold(threshold), activation == "softmax", automatic)
