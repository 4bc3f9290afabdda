"""ONNX with weights in 8 bits, for processors."""

from __future__ import annotations

import logging
from pathlib import Path

from topolora_monai.extras import import_extra

__all__ = ["quantize"]

_OPERATORS = ["MatMul"]


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
            model, out, op_types_to_quantize=_OPERATORS, per_channel=True, reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    finally:
        root.setLevel(level)
