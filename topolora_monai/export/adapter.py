"""An adapter file and its base as one graph."""

from __future__ import annotations

from pathlib import Path

from topolora_monai.adapters import base_weights, load_adapter, read_spec
from topolora_monai.export.formats import ExportFormat
from topolora_monai.export.network import Exported, export_network
from topolora_monai.networks import build_network

__all__ = ["export_adapter"]

_OF_THE_FILE = ("format", "package_version", "network_name")


def export_adapter(
    adapter: str | Path,
    path: str | Path,
    format: ExportFormat,
    weights: str | Path | None = None,
    *,
    size: tuple[int, int] | None = None,
    image_size: int | None = None,
    probabilities: bool = False,
    int8: bool = False,
) -> Exported:
    """Write what an adapter file makes of its base as a graph, with the file's header as metadata.

    Args:
        adapter: a trained adapter.
        path: where to, with the ending of the format.
        format: see :func:`export_network`.
        weights: the base checkpoint the adapter was trained on; None takes
            :func:`~topolora_monai.adapters.base_weights`.
        size: height and width in pixels that the graph takes; by default the square tiles of training.
        image_size: side that the longer one is resized to inside; by default that of training. The metadata has
            ``pixel_scale``, their ratio, and ``trained_pixel_scale``: a network is best where these are equal.
        probabilities: see :func:`export_network`.
        int8: see :func:`export_network`.

    Returns:
        The file and its difference from the network.

    Raises:
        AdapterFileError: if the adapter is damaged or does not belong to ``weights``.
        CheckpointError: if ``weights`` is damaged or of another network.
        ConfigError: as :func:`export_network`.
        OutputError: if the file cannot be written.
    """
    spec = read_spec(adapter)
    settings = spec.network_settings
    if image_size is not None:
        settings["image_size"] = image_size
    height, width = size or (spec.crop_size, spec.crop_size)
    used = base_weights(adapter) if weights is None else weights
    network = load_adapter(build_network(**settings, weights=used), adapter).network
    properties = {name: value for name, value in spec.to_header().items() if name not in _OF_THE_FILE}
    properties |= {
        "trained_with": spec.package_version,
        "image_size": settings["image_size"],
        "pixel_scale": settings["image_size"] / max(height, width),
        "trained_pixel_scale": spec.pixel_scale,
    }
    return export_network(network, path, format, (height, width), probabilities=probabilities, int8=int8, **properties)
