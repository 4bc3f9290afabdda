"""Writing a network as a graph in one of three formats, and running what was written."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from topolora_monai.errors import ConfigError
from topolora_monai.extras import import_extra

ExportFormat = Literal["pt2", "onnx", "torchscript"]

EXPORT_FORMATS: dict[str, str] = {"pt2": ".pt2", "onnx": ".onnx", "torchscript": ".ts"}
"""Format to the ending of its files."""

_METADATA_KEY = "topolora_monai"
"""Under which the JSON with everything a user of the file needs to know is stored."""

Runner = Callable[[Tensor], Tensor]

_ONNX_LIMIT = 2**31 - 2**24
"""Bytes of weights that fit into one file of ONNX, with room for the graph."""


def write(graph: nn.Module, example: Tensor, metadata: dict[str, Any], path: Path, format_name: str) -> None:
    """Write a frozen network in evaluation mode, whose one output is a tensor, in one of :data:`EXPORT_FORMATS`.

    The batch may have any size, as the example of at least two images, (B, C, H, W) float32, has; the image's sides are
    fixed. Metadata are plain JSON types, with the name of the output under ``output``. A ``ConfigError`` for ONNX, if a
    library is missing or the network is too large; the exporters raise many kinds.
    """
    text = json.dumps(metadata)
    with torch.no_grad(), _quietly():
        _WRITERS[format_name](graph, example, text, path)


def run_written(path: Path, format_name: str) -> Runner:
    """Load a file that :func:`write` has just written, to run it on the CPU.

    PyTorch may unpickle parts of a ``.pt2`` file, so this is for files of one's own alone.
    """
    if format_name == "onnx":
        return onnx_runner(path)
    if format_name == "torchscript":
        return _without_gradient(torch.jit.load(path, map_location="cpu"))
    with path.open("rb") as file, _quietly():
        return _without_gradient(torch.export.load(file).module())


def onnx_runner(path: str | Path) -> Runner:
    """Run an ONNX file with one input and one output on the CPU, with as many threads as PyTorch uses.

    A ``ConfigError`` if ONNX Runtime is not installed.
    """
    runtime = import_extra("onnxruntime", "export", "ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; it warns of every weight that folding left over
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: torch.from_numpy(session.run(None, {name: image.numpy()})[0])


def quantize(path: str | Path, out: str | Path) -> None:
    """Store the weights of linear layers in 8 bits and multiply them by inputs rounded when they come in.

    Each output channel has a scale of its own. Convolutions, normalisations and the products of attention, which
    have no weights, stay in float32. Weights take seven of the eight bits: with all eight, sums overflow on
    processors without VNNI instructions, so that a file would give other masks on other machines.

    Args:
        path: an ONNX file in float32.
        out: where to; its metadata is that of ``path``.

    Raises:
        ConfigError: if a library is missing.
    """
    quantization = import_extra("onnxruntime.quantization", "export", "ONNX")
    model = import_extra("onnx", "export", "ONNX").load(str(path))
    del model.graph.value_info[:]  # shapes that are wrong once the quantiser has transposed weights
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a step that the exporter has done already
    try:
        quantization.quantize_dynamic(
            model, out, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    finally:
        root.setLevel(level)


def _write_pt2(graph: nn.Module, example: Tensor, metadata: str, path: Path) -> None:
    program = torch.export.export(graph, (example,), dynamic_shapes=_any_batch())
    with path.open("wb") as file:  # by name, it would insist on the ending
        torch.export.save(program, file, extra_files={_METADATA_KEY: metadata})


def _write_onnx(graph: nn.Module, example: Tensor, metadata: str, path: Path) -> None:
    onnx = import_extra("onnx", "export", "ONNX")
    for library in ("onnxscript", "onnxruntime"):  # the second is used later, to compare
        import_extra(library, "export", "ONNX")
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    if size > _ONNX_LIMIT:
        raise ConfigError(
            "network is too large for one file of ONNX",
            expected="at most 2.1 GB of weights",
            found=f"{size / 1e9:.1f} GB",
            hint="use format pt2 or torchscript",
        )
    output = json.loads(metadata)["output"]
    program = torch.onnx.export(
        graph, (example,), dynamo=True, input_names=["image"], output_names=[output], dynamic_shapes=_any_batch(),
        verbose=False,
    )  # fmt: skip
    assert program is not None  # as it always is with dynamo
    program.model.metadata_props[_METADATA_KEY] = metadata
    program.save(path, external_data=False)
    onnx.checker.check_model(str(path), full_check=True)


def _write_torchscript(graph: nn.Module, example: Tensor, metadata: str, path: Path) -> None:
    traced = torch.jit.trace(graph, example, check_trace=False)  # compared with another batch later
    torch.jit.save(traced, path, _extra_files={_METADATA_KEY: metadata})


_WRITERS: dict[str, Callable[[nn.Module, Tensor, str, Path], None]] = {
    "pt2": _write_pt2,
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
}


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


def _without_gradient(module: Callable[[Tensor], Tensor]) -> Runner:
    def run(image: Tensor) -> Tensor:
        with torch.no_grad():
            return module(image)

    return run


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence warnings of sides that become constants, which is the intention, and of the libraries' own past."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
