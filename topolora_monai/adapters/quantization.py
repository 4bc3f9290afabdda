"""Frozen linear layers in 8 or 4 bits, by bitsandbytes."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from peft.utils.integrations import dequantize_bnb_weight
from torch import nn

from topolora_monai.adapters.config import BaseQuantization
from topolora_monai.errors import ConfigError

__all__ = ["dequantize_linears", "is_quantized", "quantize_linears", "stored_elements"]


def quantize_linears(module: nn.Module, kind: BaseQuantization) -> None:
    """Replace every linear layer of a frozen module, in place.

    Args:
        module: with float weights on the CPU; its linear layers are rounded here, whatever device the module
            moves to later, so that an adapter meets the same base everywhere.
        kind: ``"8bit"`` is LLM.int8 (arXiv 2208.07339), which also rounds the layers' inputs; ``"4bit"`` is
            NF4 (arXiv 2305.14314), which rounds the weights alone; ``"none"`` does nothing.

    Raises:
        ConfigError: if bitsandbytes is not installed.
    """
    if kind == "none":
        return
    for name, linear in list(module.named_modules()):
        if type(linear) is nn.Linear:
            quantized = _empty_linear(kind, linear)
            quantized.load_state_dict(linear.state_dict())
            quantized.requires_grad_(False)
            module.set_submodule(name, quantized.to("cpu").train(linear.training))  # to() rounds


def dequantize_linears(module: nn.Module) -> None:
    """Replace every quantised linear layer by a plain one of the rounded values, in float32 and in place."""
    for name, quantized in list(module.named_modules()):
        if is_quantized(quantized):
            quantized.state_dict()  # undoes the order of bits that the CPU's 4-bit kernel makes for itself
            linear = nn.Linear(quantized.in_features, quantized.out_features, quantized.bias is not None, device="meta")
            weight = dequantize_bnb_weight(quantized.weight, state=getattr(quantized, "state", None))
            linear.weight = nn.Parameter(weight.detach().float().reshape(linear.weight.shape), requires_grad=False)
            if quantized.bias is not None:
                linear.bias = quantized.bias
            module.set_submodule(name, linear.train(quantized.training))


def is_quantized(module: nn.Module) -> bool:
    """Whether this is a linear layer of bitsandbytes."""
    return isinstance(module, nn.Linear) and type(module.weight).__name__ in ("Int8Params", "Params4bit")


def stored_elements(parameter: torch.Tensor) -> int:
    """Number of weights in a tensor, also where two are packed into a byte."""
    state: Any = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def _empty_linear(kind: BaseQuantization, linear: nn.Linear) -> Any:
    shape = (linear.in_features, linear.out_features, linear.bias is not None)
    if kind == "8bit":
        return _linear_8bit()(*shape, has_fp16_weights=False)
    return _bitsandbytes().nn.Linear4bit(*shape, quant_type="nf4")


@cache
def _linear_8bit() -> type[Any]:
    base: type[Any] = _bitsandbytes().nn.Linear8bitLt

    class Linear8bit(base):
        """LLM.int8 for inputs of any shape; bitsandbytes takes matrices alone on a CPU."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows: torch.Tensor = super().forward(x.flatten(0, -2))
            grid: torch.Tensor = rows.unflatten(0, x.shape[:-1])
            return grid

    return Linear8bit


def _bitsandbytes() -> Any:
    try:
        bitsandbytes = importlib.import_module("bitsandbytes")  # optional
    except ImportError as error:
        raise ConfigError(
            "a quantised base needs the bitsandbytes library",
            expected="bitsandbytes 0.50 or later",
            found=str(error),
            hint="pip install bitsandbytes, or set base_quantization none",
        ) from error
    return bitsandbytes
