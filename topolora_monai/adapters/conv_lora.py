"""Conv-LoRA (ICLR 2024, arXiv 2401.17868): low-rank updates with a mixture of convolutions, registered with PEFT."""

import contextlib
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from topolora_monai.adapters.conv_experts import ConvExperts, Gate, NoisyTopKGate
from topolora_monai.errors import ConfigError
from topolora_monai.networks.attention import fill_windows


class ConvLoraType(str, enum.Enum):
    """What the method is called, in the form in which PEFT keeps the types of its own methods."""

    CONV_LORA = "CONV_LORA"


@dataclass
class ConvLoraConfig(PeftConfig):
    """PEFT configuration of Conv-LoRA, stored by ``save_pretrained`` as every other.

    Args:
        r: rank; channels that the experts work on.
        lora_alpha: the update is scaled by lora_alpha / r.
        target_modules: names of linear layers, a regular expression, or ``"all-linear"``.
        scales: one whole number an expert, the scale it works at.
        top_k: experts that answer for each image or window.
        gate: ``"learned"`` weights answers by the gate's probabilities, so that the task trains the routing;
            ``"published"`` weights them by one, as the reference code does.
        balance_weight: weight of the loss that keeps the experts equally busy.
        modules_to_save: other modules that train and are stored.
        exclude_modules: what of ``target_modules`` is left out, likewise.
        layers_to_transform: numbers of the layers to adapt; all by default.
        layers_pattern: name of the list that they are counted in.

    Raises:
        ConfigError: for ``layers_to_transform`` beside a text, or ``layers_pattern`` without them.

    Example:
        >>> import torch
        >>> from peft import get_peft_model
        >>> config = ConvLoraConfig(r=2, target_modules=["0"])
        >>> get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), config).get_nb_trainable_parameters()
        (368, 440)
    """

    r: int = 3
    lora_alpha: float = 32.0
    target_modules: list[str] | str | None = None
    scales: Sequence[int] = (1, 2, 3, 4, 5, 6, 7, 8)
    top_k: int = 1
    gate: Gate = "learned"
    balance_weight: float = 1e-2
    modules_to_save: list[str] | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = ConvLoraType.CONV_LORA
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):  # PEFT would pass over them
            raise ConfigError("layers_to_transform needs a list of target_modules", found=repr(self.target_modules))
        if self.layers_pattern and self.layers_to_transform is None:
            raise ConfigError("layers_pattern needs layers_to_transform", found=repr(self.layers_pattern))


class ConvLoraLinear(nn.Module, BaseTunerLayer):
    """A frozen linear layer plus ``lora_alpha / r * B z``, where convolutions mix ``z`` (arXiv 2401.17868).

    ``z = A x`` on the token grid, then ``z + sum_i g_i * expert_i(z)`` over the experts that the gate chose
    for this image or window. B starts at zero: a new layer changes nothing, to the bit. The layer is not
    linear in its input, so it cannot be merged.

    In training, each forward pass leaves the weighted balance loss in ``balance_loss``, to be collected by
    :func:`balance_loss` before the backward pass; otherwise that is None. With activation checkpointing of
    the non-reentrant kind, the recomputation leaves it as it was.

    Args:
        base_layer: the linear layer to adapt.
        adapter_name: PEFT's name of the adapter.
        config: its settings, by default those published but for the gate.

    Attributes:
        dense: run all experts and mask, whatever the mode. Export and tracing do so by themselves.

    Example:
        >>> layer = ConvLoraLinear(nn.Linear(16, 48))
        >>> layer(torch.rand(2, 20, 17, 16)).shape  # a grid, routed as one
        torch.Size([2, 20, 17, 48])
        >>> layer(torch.rand(2, 20, 17, 16), window=14).shape  # filled up with zero tokens, routed by window
        torch.Size([2, 28, 28, 48])
    """

    adapter_layer_names = ("lora_A", "lora_B", "lora_gate", "lora_experts")
    other_param_names = ("r", "lora_alpha", "scaling", "balance_weight")
    takes_windows = True  # for the attention of the image encoder

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str = "default", config: ConvLoraConfig | None = None
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.r: dict[str, int] = {}
        self.lora_alpha: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        self.balance_weight: dict[str, float] = {}
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.lora_gate, self.lora_experts = nn.ModuleDict(), nn.ModuleDict()
        self.dense = False
        self.balance_loss: Tensor | None = None
        self._disable_adapters = False
        self._active_adapter: str | list[str] = adapter_name
        self.merged_adapters: list[str] = []
        self.update_layer(adapter_name, config or ConvLoraConfig())

    def update_layer(self, adapter_name: str, config: ConvLoraConfig) -> None:
        """Add an adapter."""
        r = config.r
        self.r[adapter_name] = r
        self.lora_alpha[adapter_name] = config.lora_alpha
        self.scaling[adapter_name] = config.lora_alpha / r
        self.balance_weight[adapter_name] = config.balance_weight
        compress, expand = nn.Linear(self.in_features, r, bias=False), nn.Linear(r, self.out_features, bias=False)
        nn.init.kaiming_uniform_(compress.weight, a=math.sqrt(5))
        nn.init.zeros_(expand.weight)
        self.lora_A[adapter_name], self.lora_B[adapter_name] = compress, expand
        self.lora_gate[adapter_name] = NoisyTopKGate(r, len(config.scales), config.top_k, config.gate)
        self.lora_experts[adapter_name] = ConvExperts(r, config.scales)
        self.train(self.base_layer.training)  # a gate that trains is noisy
        self._move_adapter_to_device_of_base_layer(adapter_name)  # type: ignore[operator]
        self.set_adapter(self.active_adapters)  # type: ignore[operator]

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """Apply the layer.

        Args:
            x: tokens as a grid, shape (B, H, W, in_features), or as sequences of square grids, shape
                (N, T, in_features); each leading index is routed by itself.
            window: side of the attention windows of a grid, which are then routed one by one; the grid is
                filled up to whole windows with zero tokens below and to the right. 0 for none.

        Returns:
            The shape of ``x``, with sides rounded up to whole windows, and out_features channels.

        Raises:
            ConfigError: for a sequence that is no square grid, or tokens without a grid.
        """
        result: Tensor = self.base_layer(x)
        if window:
            result = fill_windows(result, x, self.base_layer, window)
        imbalances: list[Tensor] = []
        for name in () if self.disable_adapters else self._active():
            result = self._add_update(result, x, window, name, imbalances)
        if not _recomputing():
            self.balance_loss = torch.stack(imbalances).sum() if imbalances else None
        return result

    def set_scale(self, adapter: str, scale: float) -> None:
        """Scale an adapter's update by ``scale * lora_alpha / r``; a layer without it is left alone."""
        if adapter in self.scaling:
            self.scaling[adapter] = scale * self.lora_alpha[adapter] / self.r[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the scale of the active adapters."""
        for name in self._active():
            self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the scale of the active adapters, or with None make it what it was at first."""
        for name in self._active():
            if scale is None:
                self.set_scale(name, 1)
            else:
                self.scaling[name] /= scale

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: the update is not linear.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a Conv-LoRA layer cannot be merged into the weights it adapts",
            hint="keep it as a module, as topolora_monai.adapters.merge does",
        )

    def unmerge(self) -> None:
        """Refuse, as :meth:`merge`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a Conv-LoRA layer cannot be unmerged, as it is never merged", hint="use disable_adapter()")

    def __getstate__(self) -> dict[str, Any]:
        """Without the loss of the last pass, whose graph can be neither copied nor stored."""
        return self.__dict__ | {"balance_loss": None}

    def _active(self) -> list[str]:
        active: list[str] = self.active_adapters  # type: ignore[assignment]
        return [name for name in active if name in self.lora_A]

    def _add_update(self, result: Tensor, x: Tensor, window: int, name: str, imbalances: list[Tensor]) -> Tensor:
        if x.ndim not in (3, 4):
            raise ConfigError(
                "Conv-LoRA works on a grid of tokens",
                expected="shape (B, H, W, channels), or (N, square number of tokens, channels)",
                found=tuple(x.shape),
                hint="adapt this layer by LoRA",
            )
        compress: Tensor = self.lora_A[name].weight  # type: ignore[assignment]
        expand: Tensor = self.lora_B[name].weight  # type: ignore[assignment]
        compressed = F.linear(x, compress.to(x.dtype))
        # The few channels of the experts stay out of autocast, where their sums could overflow.
        autocast = torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, enabled=False) if autocast else contextlib.nullcontext():
            maps = _to_maps(compressed, window).to(torch.promote_types(compressed.dtype, torch.float32))
            routing = self.lora_gate[name](maps)
            # Neither export nor tracing may depend on the data.
            dense = self.dense or torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]
            mixed = maps + self.lora_experts[name](maps, routing, dense=dense)
        if routing.imbalance is not None:
            imbalances.append(self.balance_weight[name] * routing.imbalance)
        tokens = _to_tokens(mixed, result.shape[:-1], window)
        flat, factor = result.reshape(-1, self.out_features), expand.to(result.dtype).T
        updated = torch.addmm(flat, tokens.to(result.dtype), factor, alpha=self.scaling[name])
        return updated.view_as(result)


class ConvLoraModel(BaseTuner):
    """Replaces linear layers by :class:`ConvLoraLinear`; to be used through PEFT's functions."""

    prefix = "lora_"
    tuner_layer_cls = ConvLoraLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def add_weighted_adapter(self, *_: Any, **__: Any) -> None:
        """Refuse: the layers are not linear in their weights.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a weighted sum of Conv-LoRA adapters is no Conv-LoRA adapter",
            hint="make several active by base_model.set_adapter, which adds their updates up, each by its set_scale",
        )

    def _create_and_replace(
        self,
        peft_config: ConvLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, ConvLoraLinear):
            target.update_layer(adapter_name, peft_config)
        elif isinstance(target, nn.Linear):
            self._replace_module(parent, target_name, ConvLoraLinear(target, adapter_name, peft_config), target)
        else:
            raise ConfigError(
                f"Conv-LoRA cannot adapt layer {current_key}", expected="torch.nn.Linear", found=type(target).__name__
            )


def balance_loss(network: nn.Module) -> Tensor:
    """Sum of the balance losses that the last forward pass in training left in Conv-LoRA layers.

    Add it to the task's loss before the backward pass.

    Args:
        network: any module.

    Returns:
        A scalar, already weighted; zero (on the CPU) for a network that has none.

    Example:
        >>> layer = ConvLoraLinear(nn.Linear(16, 48)).train()
        >>> _ = layer(torch.rand(25, 14, 14, 16))
        >>> balance_loss(layer).requires_grad
        True
        >>> balance_loss(nn.Linear(2, 2))
        tensor(0.)
    """
    layers = [module for module in network.modules() if isinstance(module, ConvLoraLinear)]
    losses = [layer.balance_loss for layer in layers if layer.balance_loss is not None]
    return torch.stack([loss.to(losses[0].device) for loss in losses]).sum() if losses else torch.zeros(())


def _to_maps(tokens: Tensor, window: int) -> Tensor:
    """Channels first, one map for each unit of routing; (B, H, W, r) or (N, T, r) to (N', r, h, w)."""
    if tokens.ndim == 3:
        side = math.isqrt(tokens.shape[1])
        if side * side != tokens.shape[1]:
            raise ConfigError(
                "Conv-LoRA cannot tell the grid of a sequence of tokens",
                expected="a square number of tokens, or a grid of shape (B, H, W, C)",
                found=f"{tokens.shape[1]} tokens",
            )
        tokens = tokens.unflatten(1, (side, side))
    if not window:
        return tokens.permute(0, 3, 1, 2).contiguous()
    batch, height, width, rank = tokens.shape
    padded = F.pad(tokens, (0, 0, 0, -width % window, 0, -height % window))
    rows, columns = padded.shape[1] // window, padded.shape[2] // window
    tiles = padded.reshape(batch, rows, window, columns, window, rank).permute(0, 1, 3, 5, 2, 4)
    return tiles.reshape(batch * rows * columns, rank, window, window)


def _to_tokens(maps: Tensor, shape: Sequence[int], window: int) -> Tensor:
    """Inverse of :func:`_to_maps` for tokens that tile ``shape``; (N', r, h, w) to (tokens, r)."""
    rank = maps.shape[1]
    if not window:
        return maps.permute(0, 2, 3, 1).reshape(-1, rank)
    rows, columns = shape[1] // window, shape[2] // window
    tiles = maps.reshape(-1, rows, columns, rank, window, window).permute(0, 1, 4, 2, 5, 3)
    return tiles.reshape(-1, rank)


def _recomputing() -> bool:
    """Whether a backward pass is running here, as it is while a checkpointed block is computed again."""
    running: int = torch._C._current_graph_task_id()
    return running != -1


# peft.utils.register_peft_method takes none but the types that PEFT lists itself; these are the tables it fills.
PEFT_TYPE_TO_CONFIG_MAPPING[ConvLoraType.CONV_LORA] = ConvLoraConfig
PEFT_TYPE_TO_TUNER_MAPPING[ConvLoraType.CONV_LORA] = ConvLoraModel
PEFT_TYPE_TO_PREFIX_MAPPING[ConvLoraType.CONV_LORA] = ConvLoraModel.prefix
