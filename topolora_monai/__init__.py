"""Topology-aware, parameter-efficient segmentation with SAM-family networks, as MONAI parts.

The names below are all that most programs need; each is imported when it is first used. The parts they come from,
such as :mod:`topolora_monai.losses`, hold more.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from topolora_monai import Predictor, TopologyLoss, adapt, build_network, preset_config, save_adapter
    >>> network = build_network("vit_tiny_test", image_size=128)  # or "vit_t", weights="mobile_sam"
    >>> adaptation = adapt(network, preset_config("topolora", lora={"r": 16}))
    >>> optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=5e-4)
    >>> image, target = torch.rand(1, 3, 100, 140), torch.zeros(1, 1, 100, 140)
    >>> loss = TopologyLoss()(network(image), target)
    >>> loss.backward()
    >>> optimizer.step()
    >>> adapter = Path(tempfile.mkdtemp()) / "vessels.safetensors"
    >>> save_adapter(adaptation, adapter, labels=["background", "vessel"])
    >>> predictor = Predictor.from_adapter(adapter)  # or .from_run("runs/drive"), .from_bundle("vessels")
    >>> predictor(image[0]).mask.shape  # of an array, a file, a folder or a glob; scenes and volumes as well
    (100, 140)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topolora_monai.adapters import AdapterLibrary, load_adapter, preset_config, save_adapter
    from topolora_monai.adapters.adapt import adapt, merge  # of the module, whose name mypy would take for the function
    from topolora_monai.data import Folder, open_dataset
    from topolora_monai.errors import TopoLoRAError
    from topolora_monai.export import export_adapter
    from topolora_monai.losses import SoftClDiceLoss, TopologyLoss
    from topolora_monai.metrics import ImageMetric, cldice
    from topolora_monai.model.predictor import Predictor
    from topolora_monai.networks import build_network
    from topolora_monai.planning.plan import plan  # likewise
    from topolora_monai.spec import ModelSpec

__version__ = "0.1.0"

__all__ = [
    "AdapterLibrary",
    "Folder",
    "ImageMetric",
    "ModelSpec",
    "Predictor",
    "SoftClDiceLoss",
    "TopoLoRAError",
    "TopologyLoss",
    "__version__",
    "adapt",
    "build_network",
    "cldice",
    "export_adapter",
    "load_adapter",
    "merge",
    "open_dataset",
    "plan",
    "preset_config",
    "save_adapter",
]

_HOMES = {
    "adapters": ("AdapterLibrary", "adapt", "load_adapter", "merge", "preset_config", "save_adapter"),
    "data": ("Folder", "open_dataset"),
    "errors": ("TopoLoRAError",),
    "export": ("export_adapter",),
    "losses": ("SoftClDiceLoss", "TopologyLoss"),
    "metrics": ("ImageMetric", "cldice"),
    "model.predictor": ("Predictor",),
    "networks": ("build_network",),
    "planning": ("plan",),
    "spec": ("ModelSpec",),
}
"""Public names by the module that they come from; importing any but the errors takes seconds."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
