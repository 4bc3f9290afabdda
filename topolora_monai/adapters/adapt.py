"""Freeze a segmenter, inject what trains, and take it apart again."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import cast

import torch
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from topolora_monai.adapters.config import AdaptationConfig, LowRank
from topolora_monai.adapters.conv_lora import ConvLoraLinear
from topolora_monai.adapters.detail_branch import DetailBranch
from topolora_monai.adapters.spatial_conv import SpatialConvAdapter
from topolora_monai.errors import ConfigError
from topolora_monai.networks.mask_decoder import MaskDecoder
from topolora_monai.weights import fingerprint

# Names that SAM's ViT (lin1, lin2), TinyViT (fc1, fc2) and Hiera (proj_in, proj_out) give the linears of a block.
_LINEAR_NAMES = {
    "mlp": ("mlp.lin1", "mlp.lin2", "mlp.fc1", "mlp.fc2", "mlp.proj_in", "mlp.proj_out"),
    "qkv": ("attn.qkv",),
    "proj": ("attn.proj",),
}

# Of the mask decoder's transformer, which is SAM's in all networks.
_DECODER_LINEAR_NAMES = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "mlp": ("lin1", "lin2"),
}
# Parts of the package's own, which no checkpoint has trained.
_OWN_PARTS = (
    "embedding_adapter.",
    "detail_branch.",
    "channel_mixer.",
    "mask_decoder.class_tokens",
    "mask_decoder.token_set.",
)


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """An adapted network and what is known of it.

    Args:
        network: the network, changed in place.
        config: what was injected.
        base_name: name of the base network.
        base_sha256: fingerprint of the base's weights before anything was trained.
    """

    network: nn.Module
    config: AdaptationConfig
    base_name: str
    base_sha256: str

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name to parameter of everything that trains."""
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    @property
    def total_count(self) -> int:
        """Number of parameters, adapters included."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def trainable_count(self) -> int:
        """Number of parameters that train."""
        return sum(p.numel() for p in self.trainable().values())

    @property
    def published_trainable_count(self) -> int:
        """What the paper counts.

        TopoLoRA-SAM's also counts the decoder parts that can get no gradient, which are frozen here. Those
        are left out by Conv-LoRA's (presets ``conv_lora`` and ``lora_qkv``), as are SAM's mask tokens 1 to 3:
        its decoder has one, while ours keeps all, to start from what SAM computes.
        """
        if not self.config.train_decoder or not _has_parts(self.network):
            return self.trainable_count
        idle = sum(p.numel() for module in _unused(self.network) for p in module.parameters())
        if self.config.preset in ("conv_lora", "lora_qkv"):
            tokens: nn.Parameter = self.network.get_submodule("mask_decoder.mask_tokens").weight  # type: ignore[assignment]
            return self.trainable_count - tokens[1:].numel() - (0 if self.config.freeze_unused else idle)
        return self.trainable_count + (idle if self.config.freeze_unused else 0)


def adapt(network: nn.Module, config: AdaptationConfig, seed: int = 0) -> Adaptation:
    """Freeze a segmenter and inject what trains. The output does not change until training starts.

    Args:
        network: a freshly built, unadapted segmenter, changed in place; one without SAM's parts, as the
            baselines are, can only be trained whole.
        config: what to train.
        seed: of the adapters' initial weights; the global generator is left untouched.

    Returns:
        The network with its provenance.

    Raises:
        ConfigError: if the network is adapted already or can only be trained whole, a block range matches no layer,
            or a detail branch is asked for on a token set.

    Example:
        >>> from topolora_monai.adapters import preset_config
        >>> from topolora_monai.networks import build_network
        >>> adaptation = adapt(build_network("vit_tiny_test"), preset_config("adapter_only"))
        >>> sorted(adaptation.trainable())[0]
        'embedding_adapter.block.0.weight'
    """
    base_sha256 = fingerprint(network.state_dict())
    prepare(network, config, seed)
    return Adaptation(network, config, getattr(network, "base_name", "custom"), base_sha256)


def prepare(network: nn.Module, config: AdaptationConfig, seed: int = 0) -> None:
    """The injecting and freezing of :func:`adapt`, also for a network on the meta device, which has no weights."""
    if any(isinstance(module, BaseTunerLayer | SpatialConvAdapter | DetailBranch) for module in network.modules()):
        raise ConfigError("this network is adapted already", hint="build a fresh one, or merge() first")
    whole = config.train_encoder and config.train_decoder and not config.adds_parameters
    if not _has_parts(network) and not whole:
        raise ConfigError(
            f"{getattr(network, 'base_name', 'this network')} has none of SAM's parts to adapt and is trained whole",
            found=f"preset {config.preset}",
            hint="use preset full",
        )
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if _has_parts(network):
            _inject(network, config)
        if config.conv_adapter:
            channels: int = network.get_submodule("prompt_encoder").embed_dim  # type: ignore[assignment]
            network.embedding_adapter = SpatialConvAdapter(channels, config.conv_adapter_norm)
        if config.detail_branch:
            network.detail_branch = _detail_branch(network)
    _unfreeze(network, config)
    network.train(network.training)  # freezing decides which normalisation layers keep their statistics


def merge(network: nn.Module) -> nn.Module:
    """Fold LoRA, DoRA and rsLoRA into the weights they adapt and remove PEFT's wrappers, in place.

    Conv-LoRA, the conv adapter and the detail branch are not linear and stay as modules. It is computed on the CPU, so
    that it gives the same weights wherever the network is, and tensors that other networks share are not written to.

    Example:
        >>> from topolora_monai.adapters import preset_config
        >>> from topolora_monai.networks import build_network
        >>> network = adapt(build_network("vit_tiny_test"), preset_config("lora")).network
        >>> any("lora" in name for name in merge(network).state_dict())
        False
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer) and not isinstance(module, ConvLoraLinear):
            device = next(module.parameters()).device
            alone = copy.deepcopy(module).cpu()
            alone.merge(safe_merge=True)
            network.set_submodule(name, alone.get_base_layer().to(device))
    return network


def _inject(network: nn.Module, config: AdaptationConfig) -> None:
    """Wrap linears by PEFT's layers; always in the same order, which the seeded start depends on."""
    encoder, decoder = network.get_submodule("image_encoder"), network.get_submodule("mask_decoder")
    for name, part, method, names in (
        ("lora", encoder, config.lora, _block_linears),
        ("conv_lora", encoder, config.conv_lora, _block_linears),
        ("decoder_lora", decoder, config.decoder_lora, _decoder_linears),
    ):
        if method is None:
            continue
        found = list(names(part, method))
        if not found:
            raise ConfigError(
                f"{name} matches no layer of this network",
                expected=f"{method.targets} in blocks {method.first_block} to {method.last_block or 'the end'}",
                found="none",
                hint=f"check first_block, last_block and targets of {name}",
            )
        if hasattr(part, "peft_config"):  # left by another method; PEFT would warn that there are two
            del part.peft_config
        inject_adapter_in_model(dataclasses.replace(method.peft, target_modules=found), part)


def _detail_branch(network: nn.Module) -> DetailBranch:
    decoder = cast(MaskDecoder, network.get_submodule("mask_decoder"))
    if decoder.token_set is not None:
        raise ConfigError(
            "a detail branch refines the masks of classes, and a token set is trained by those of its tokens",
            hint="set multiclass_head per_class, or detail_branch false",
        )
    channels: int = network.get_submodule("prompt_encoder").embed_dim  # type: ignore[assignment]
    return DetailBranch(1 if decoder.class_tokens is None else len(decoder.class_tokens), channels // 8)


def _block_linears(encoder: nn.Module, method: LowRank) -> Iterator[str]:
    """Full names of the linears to adapt; transformer blocks are numbered in order of depth."""
    suffixes = tuple(name for target in method.targets for name in _LINEAR_NAMES[target])
    blocks = [name for name, module in encoder.named_modules() if hasattr(module, "attn") and hasattr(module, "mlp")]
    for block in blocks[method.first_block : method.last_block]:
        for name, module in encoder.get_submodule(block).named_modules():
            if isinstance(module, nn.Linear) and name in suffixes:
                yield f"{block}.{name}"


def _decoder_linears(decoder: nn.Module, method: LowRank) -> Iterator[str]:
    endings = tuple(name for target in method.targets for name in _DECODER_LINEAR_NAMES[target])
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("transformer.") and name.rpartition(".")[2] in endings:
            yield name


def _has_parts(network: nn.Module) -> bool:
    """Whether a network has SAM's parts; the baselines do not."""
    return hasattr(network, "image_encoder")


def _unfreeze(network: nn.Module, config: AdaptationConfig) -> None:
    if not _has_parts(network):
        network.requires_grad_(True)
        return
    for name, parameter in network.named_parameters():
        if ".lora_" in name or name.startswith(_OWN_PARTS):
            parameter.requires_grad_(True)
    if config.train_encoder:
        network.get_submodule("image_encoder").requires_grad_(True)
    if config.train_decoder:
        network.get_submodule("mask_decoder").requires_grad_(True)
        if config.freeze_unused:
            for module in _unused(network):
                module.requires_grad_(False)


def _unused(network: nn.Module) -> list[nn.Module]:
    return network.get_submodule("mask_decoder").unused_modules  # type: ignore[return-value]
