"""Networks by name: the official SAM sizes, MobileSAM, SAM 2, a tiny one that needs no weights, and the baselines."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from segment_anything import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import ImageEncoderViT, PromptEncoder, TwoWayTransformer
from segment_anything.modeling import MaskDecoder as OriginalMaskDecoder
from torch import nn

from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.networks.baselines import BASELINE_NAMES, BaselineSegmenter, build_baseline
from topolora_monai.networks.mask_decoder import MaskDecoder
from topolora_monai.networks.sam2 import Sam2ImageEncoder, Sam2MaskDecoder, Sam2Size
from topolora_monai.networks.segmenter import Fit, SamSegmenter
from topolora_monai.networks.tiny_vit import TinyVitImageEncoder
from topolora_monai.networks.vit import VitImageEncoder
from topolora_monai.parsing import parse_bool
from topolora_monai.weights import load_base_weights, published_name

MulticlassHead = Literal["per_class", "token_set"]

_Parts = tuple[nn.Module, PromptEncoder, OriginalMaskDecoder]


def build_network(
    network_name: str,
    *,
    weights: str | Path | None = None,
    image_size: int = 1024,
    in_channels: int = 3,
    out_channels: int = 1,
    fit: Fit = "pad",
    activation_checkpointing: bool = False,
    multiclass_head: MulticlassHead = "per_class",
    mask_tokens: int = 10,
    seed: int = 0,
) -> SamSegmenter | BaselineSegmenter:
    """Build a segmenter by name, with random weights or a published checkpoint.

    Args:
        network_name: one of :data:`NETWORK_NAMES`.
        weights: published checkpoint of that base, as a path or the name of one that
            ``topolora weights fetch`` has fetched, or encoder weights of a baseline (see
            :func:`~topolora_monai.networks.baselines.build_baseline`); None keeps seeded random weights. The
            network's ``pretrained`` says which it was.
        image_size: side in pixels the image encoder works at; any multiple of 16, for SAM 2 of 32. Baselines
            work at the image's own size.
        in_channels: channels of the images.
        out_channels: number of classes K; 1 for foreground against background.
        fit: see :class:`SamSegmenter`; without meaning for baselines.
        activation_checkpointing: trade time for memory in training; not for baselines.
        multiclass_head: ``"per_class"`` has a mask token for each class; ``"token_set"`` has ``mask_tokens`` of
            them, each with a class of its own (Conv-LoRA), for classes that exclude one another; not for baselines.
        mask_tokens: size of the token set.
        seed: of the random weights; the global generator is left untouched.

    Returns:
        The segmenter, in evaluation mode, on the CPU, in float32; its ``settings`` say what it was built with.

    Raises:
        ConfigError: for an unknown name, an impossible size or head, or a package that is not installed.
        CheckpointError: for a checkpoint that is damaged or of another base.

    Example:
        >>> network = build_network("vit_tiny_test", image_size=128)
        >>> sum(p.numel() for p in network.parameters()) < 5_000_000
        True
    """
    activation_checkpointing = parse_bool(activation_checkpointing)
    if multiclass_head not in get_args(MulticlassHead):
        raise unknown_choice("multiclass_head", multiclass_head, get_args(MulticlassHead))
    if network_name in BASELINE_NAMES:
        if multiclass_head == "token_set":
            raise ConfigError(f"{network_name} has no mask tokens", hint="set multiclass_head per_class")
        if activation_checkpointing:
            raise ConfigError(f"{network_name} has no activation checkpointing", hint="lower batch_size or crop_size")
        baseline = build_baseline(
            network_name, encoder_weights=weights, in_channels=in_channels, out_channels=out_channels, seed=seed
        )
        sizes = {"image_size": image_size, "in_channels": in_channels, "out_channels": out_channels}
        baseline.settings = {**sizes, "seed": seed}
        return baseline
    if network_name not in _PARTS:
        raise unknown_choice("network_name", network_name, NETWORK_NAMES)
    if in_channels < 1 or out_channels < 1:
        raise ConfigError("in_channels and out_channels must be positive", found=(in_channels, out_channels))
    if mask_tokens < 1:
        raise ConfigError("mask_tokens must be positive", found=mask_tokens)
    token_set = multiclass_head == "token_set"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, prompt_encoder, decoder = _PARTS[network_name](activation_checkpointing)
        wrap = Sam2MaskDecoder if isinstance(encoder, Sam2ImageEncoder) else MaskDecoder
        network = SamSegmenter(
            encoder,
            prompt_encoder,
            wrap(decoder, 1 if token_set else out_channels),
            image_size,
            in_channels,
            fit,
            network_name,
        )
    if weights is not None:
        load_base_weights(network, weights, network_name)
        network.mask_decoder.reset_class_tokens()
        network.pretrained = True
    if token_set:
        network.mask_decoder.use_token_set(out_channels, mask_tokens)
    network.settings = {
        "image_size": image_size,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "fit": fit,
        "multiclass_head": multiclass_head,
        "mask_tokens": mask_tokens,
        "seed": seed,
        "checkpoint": None if weights is None else published_name(weights),
    }
    return network.eval()


def network_extra(network_name: str) -> str | None:
    """Extra of the package that installs what a network of :data:`NETWORK_NAMES` needs; None where nothing is missing.

    Example:
        >>> network_extra("sam2_t"), network_extra("unet_resnet34"), network_extra("vit_b")
        ('sam2', 'baselines', None)
    """
    if network_name in BASELINE_NAMES:
        return "baselines"
    return "sam2" if network_name.startswith("sam2_") else None


def _official(build: Callable[[], Any], activation_checkpointing: bool) -> _Parts:
    sam = build()
    encoder = VitImageEncoder(sam.image_encoder, activation_checkpointing)
    return encoder, sam.prompt_encoder, sam.mask_decoder


def _mobile(activation_checkpointing: bool) -> _Parts:
    return (TinyVitImageEncoder(activation_checkpointing=activation_checkpointing), *_prompting(dim=256, grid=64))


def _sam2(size: Sam2Size, activation_checkpointing: bool) -> _Parts:
    return (Sam2ImageEncoder(size, activation_checkpointing), *_prompting(dim=256, grid=64))


def _tiny_test(activation_checkpointing: bool) -> _Parts:
    encoder = ImageEncoderViT(
        img_size=256,
        embed_dim=192,
        depth=4,
        num_heads=6,
        out_chans=192,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        rel_pos_zero_init=False,
        window_size=7,
        global_attn_indexes=(1, 3),
    )
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    # What stays frozen must not lose what it sees: random projections that keep angles, and no random blur.
    for projection in (encoder.patch_embed.proj, encoder.neck[0]):
        nn.init.normal_(projection.weight, std=projection.weight[0].numel() ** -0.5)
    nn.init.dirac_(encoder.neck[2].weight)
    return (VitImageEncoder(encoder, activation_checkpointing), *_prompting(dim=192, grid=16, mlp_dim=384))


def _prompting(dim: int, grid: int, mlp_dim: int = 2048) -> tuple[PromptEncoder, OriginalMaskDecoder]:
    """SAM's prompt encoder and mask decoder for embeddings of ``dim`` channels on a ``grid`` of tokens."""
    side = 16 * grid
    prompt_encoder = PromptEncoder(
        embed_dim=dim, image_embedding_size=(grid, grid), input_image_size=(side, side), mask_in_chans=16
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=dim, num_heads=8, mlp_dim=mlp_dim)
    decoder = OriginalMaskDecoder(transformer_dim=dim, transformer=transformer)
    return prompt_encoder, decoder


_PARTS: dict[str, Callable[[bool], _Parts]] = {
    "vit_b": partial(_official, build_sam_vit_b),
    "vit_l": partial(_official, build_sam_vit_l),
    "vit_h": partial(_official, build_sam_vit_h),
    "vit_t": _mobile,
    "sam2_t": partial(_sam2, "tiny"),
    "sam2_s": partial(_sam2, "small"),
    "sam2_b": partial(_sam2, "base_plus"),
    "sam2_l": partial(_sam2, "large"),
    "vit_tiny_test": _tiny_test,
}

NETWORK_NAMES: tuple[str, ...] = (*_PARTS, *BASELINE_NAMES)
"""Names that :func:`build_network` knows."""
