"""A network as a graph in a file, compared with the network before the file is put in place."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import topolora_monai
from topolora_monai.adapters import merge, read_spec
from topolora_monai.errors import ConfigError, TopoLoRAError, first_line, unknown_choice
from topolora_monai.export.formats import EXPORT_FORMATS, ExportFormat, onnx_runner, quantize, run_written, write
from topolora_monai.io.atomic import atomic_write, writing
from topolora_monai.model.network import adapted_network
from topolora_monai.networks.activation import Activation, activated

PARITY = 1e-4
"""Largest difference from the network that a file in float32 may have, as a part of the range of the logits."""

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file with a network.

    Args:
        path: where it is.
        difference: largest absolute difference from the network's output, divided by the range of that output.
    """

    path: Path
    difference: float


def export_network(
    network: nn.Module,
    path: str | Path,
    format: ExportFormat,
    size: tuple[int, int],
    *,
    probabilities: bool = False,
    activation: Activation = "sigmoid",
    temperature: float = 1.0,
    int8: bool = False,
    images: Tensor | None = None,
    **properties: Any,
) -> Exported:
    """Write a network as a graph that needs neither this package nor its weights.

    The graph takes ``image``, float32 (B, C, H, W) in [0, 1], with any B, and gives ``logits`` or
    ``probabilities``, float32 (B, K, H, W). LoRA is merged; Conv-LoRA and the conv adapter stay, as part of the
    graph. Prompts are left out. The file is loaded again and compared with the network, on a batch of one image
    and of two, before it gets its name.

    Args:
        network: one of the package's networks, adapted or not; it is left as it is.
        path: where to, with the ending of the format: ``.pt2``, ``.onnx`` or ``.ts``.
        format: ``"pt2"`` (torch.export), ``"onnx"`` or ``"torchscript"``.
        size: height and width in pixels that the graph takes.
        probabilities: end with temperature and activation.
        activation: ``"sigmoid"``, or ``"softmax"`` where classes exclude one another.
        temperature: that logits are divided by.
        int8: store the weights of linear layers in 8 bits, see :func:`~topolora_monai.export.quantize`; for ONNX. The
            difference is then reported but not limited.
        images: two images to compare on, float32 (2, C, H, W) in [0, 1]; smooth random ones by default.
        **properties: what a user of the file needs to know, as plain JSON types (``labels``, ``threshold``,
            ``crop_size``); stored in the file as JSON with the shapes and the package's version.

    Returns:
        The file and its difference from the network.

    Raises:
        ConfigError: for settings that do not go together, a size or images that do not fit, a missing library, or a
            network that the exporter does not support or whose graph gives other values.
        OutputError: if the file cannot be written; an older one is left as it was.

    Example:
        >>> import tempfile
        >>> from topolora_monai.networks import build_network
        >>> network = build_network("little_wnet")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = export_network(network, f"{folder}/vessels.pt2", "pt2", (64, 96), threshold=0.4)
        >>> exported.difference < PARITY
        True
    """
    path = Path(path)
    _check(path, format, size, int8)
    channels: int = network.in_channels  # type: ignore[assignment]
    images = _random_images(channels, size) if images is None else images
    if images.shape != (2, channels, *size) or images.dtype != torch.float32:
        raise ConfigError(
            "images do not fit the graph", expected=f"float32 {(2, channels, *size)}", found=tuple(images.shape)
        )
    graph = _Graph(copy.deepcopy(network).cpu().float(), activation if probabilities else None, temperature)
    graph.requires_grad_(False).eval()
    with torch.no_grad():
        expected = graph(images)
    merge(graph)
    metadata = {
        "format": _FORMAT,
        "package_version": topolora_monai.__version__,
        "network_name": getattr(network, "base_name", "custom"),
        **properties,
        "activation": activation,
        "temperature": temperature,
        "input": "image",
        "output": "probabilities" if probabilities else "logits",
        "input_shape": ["batch", *images.shape[1:]],
        "output_shape": ["batch", *expected.shape[1:]],
        "precision": "int8" if int8 else "fp32",
    }
    what, instead = "the graph", "choose another --out"
    with writing(path, what, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, what, instead) as beside:
        beside.touch()  # not every exporter tells a place that cannot be written from a network it does not support
        difference = _write_checked(graph, images, expected, metadata, beside, format, int8)
    return Exported(path, difference)


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
    """Write what an adapter file makes of its base as a graph, by :func:`export_network`, with the file's header in it.

    Args:
        adapter: a trained adapter.
        path: as of :func:`export_network`.
        format: likewise.
        weights: the base checkpoint the adapter was trained on; None takes
            :func:`~topolora_monai.adapters.base_weights`.
        size: height and width in pixels that the graph takes; by default the square tiles of training.
        image_size: side that the longer one is resized to inside; by default that of training. The metadata has
            ``pixel_scale``, their ratio, and ``trained_pixel_scale``: a network is best where these are equal.
        probabilities: as of :func:`export_network`.
        int8: likewise.

    Raises:
        AdapterFileError: if the adapter is damaged or does not belong to ``weights``.
        CheckpointError: if ``weights`` is damaged or of another network.
    """
    spec = read_spec(adapter)
    changed = {} if image_size is None else {"image_size": image_size}
    image_size = changed.get("image_size", spec.image_size)
    size = size or (spec.crop_size, spec.crop_size)
    network = adapted_network(adapter, weights, merged=False, **changed)
    own = ("format", "package_version", "network_name", "prompts")  # the graph takes none
    properties = {name: value for name, value in spec.to_header().items() if name not in own}
    properties |= {
        "trained_with": spec.package_version,
        "image_size": image_size,
        "pixel_scale": image_size / max(size),
        "trained_pixel_scale": spec.pixel_scale,
    }
    return export_network(network, path, format, size, probabilities=probabilities, int8=int8, **properties)


class _Graph(nn.Module):
    """The part of a network that needs nothing but an image, and what follows on its logits if that is asked for."""

    def __init__(self, network: nn.Module, activation: Activation | None, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.activation = activation
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits if self.activation is None else activated(logits / self.temperature, self.activation)


def _check(path: Path, format_name: str, size: tuple[int, int], int8: bool) -> None:
    if format_name not in EXPORT_FORMATS:
        raise unknown_choice("format", format_name, EXPORT_FORMATS)
    if path.suffix != EXPORT_FORMATS[format_name]:
        raise ConfigError(
            f"a file of format {format_name} ends in {EXPORT_FORMATS[format_name]}",
            found=path.name,
            hint="change --out or --format",
        )
    if int8 and format_name != "onnx":
        raise ConfigError("only ONNX files are quantised", found=f"format {format_name}", hint="use --format onnx")
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise ConfigError("size of the graph's images does not fit", expected="height and width from 1", found=size)


def _random_images(channels: int, size: tuple[int, int]) -> Tensor:
    """Two images with structures of some pixels, as photographs have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, channels, *(-(-side // 8) + 1 for side in size), generator=generator)
    return nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


def _write_checked(
    graph: _Graph,
    images: Tensor,
    expected: Tensor,
    metadata: dict[str, Any],
    path: Path,
    format_name: str,
    int8: bool,
) -> float:
    """Write, load again and compare; the difference of what ends up in the file."""
    hint = f"try --format {' or '.join(name for name in EXPORT_FORMATS if name != format_name)}"
    try:
        write(graph, images, metadata, path, format_name)
        difference = _difference(run_written(path, format_name), images, expected)
    except (OSError, TopoLoRAError, KeyboardInterrupt):
        raise
    except Exception as error:  # the exporters raise many kinds, some of them straight from Exception
        raise ConfigError(
            f"{metadata['network_name']} cannot be exported as {format_name}",
            found=first_line(error),
            hint=hint,
        ) from error
    if not difference <= PARITY:
        raise ConfigError(
            f"{metadata['network_name']} gives other values as {format_name}",
            expected=f"a difference of at most {PARITY:g} of the range of its output",
            found=f"{difference:.2g}",
            hint=hint,
        )
    if not int8:
        return difference
    with atomic_write(path) as beside:
        quantize(path, beside)
    return _difference(onnx_runner(path), images, expected)


def _difference(run: Any, images: Tensor, expected: Tensor) -> float:
    """On two images at once and on one alone, since a graph could have taken over the size of the batch."""
    spread = (expected.max() - expected.min()).clamp(min=torch.finfo(torch.float32).tiny)
    return max(float((run(images[:count]) - expected[:count]).abs().max() / spread) for count in (1, 2))
