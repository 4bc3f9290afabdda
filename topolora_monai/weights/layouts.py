"""From the tensor names that publishers use to those of the package's networks."""

import re
from collections import Counter
from collections.abc import Iterable

from torch import Tensor

# TinyViT's ImageNet classifier: in the published files, never used by SAM.
_CLASSIFIER = ("image_encoder.norm_head.", "image_encoder.head.")
# What HQ-SAM adds to SAM's mask decoder.
_HIGH_QUALITY = tuple(
    f"mask_decoder.{part}."
    for part in ("hf_token", "hf_mlp", "compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
)
# The memory of SAM 2's video part, in the names of the official files and in those of transformers.
_VIDEO = (
    "memory_",
    "mask_downsample.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_",
    "obj_ptr_",
    "no_memory_positional_encoding",
    "no_object_pointer",
    "object_pointer_proj.",
    "occlusion_spatial_embedding_parameter",
    "temporal_positional_encoding_projection_layer.",
    "shared_image_embedding.",  # the prompt encoder's own table once more
)

_Rules = tuple[tuple[str, str], ...]
_SAM_2_OFFICIAL: _Rules = (
    (r"^image_encoder\.trunk\.", "image_encoder.backbone."),
    (r"^(image_encoder\.backbone\.patch_embed)\.proj\.", r"\1.projection."),
    (r"^(image_encoder\.backbone\.blocks\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"^(image_encoder\.backbone\.blocks\.\d+\.mlp)\.layers\.0\.", r"\1.proj_in."),
    (r"^(image_encoder\.backbone\.blocks\.\d+\.mlp)\.layers\.1\.", r"\1.proj_out."),
    (r"^(image_encoder\.neck\.convs\.\d+)\.conv\.", r"\1."),
    (r"^no_mem_embed$", "image_encoder.no_memory_embedding"),
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.0\.", r"\1.lin1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.layers\.1\.", r"\1.lin2."),
)
_HEADS = r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head))"
_SAM_2_TRANSFORMERS: _Rules = (
    (r"^vision_encoder\.", "image_encoder."),
    (r"^no_memory_embedding$", "image_encoder.no_memory_embedding"),
    (
        r"^prompt_encoder\.shared_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (_HEADS + r"\.layers\.0\.", r"\1.layers.1."),
    (_HEADS + r"\.proj_in\.", r"\1.layers.0."),
    (_HEADS + r"\.proj_out\.", r"\1.layers.2."),
    (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_in\.", r"\1.lin1."),
    (r"^(mask_decoder\.transformer\.layers\.\d+\.mlp)\.proj_out\.", r"\1.lin2."),
    (r"^mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
    (r"^(mask_decoder\.transformer\..+)\.o_proj\.", r"\1.out_proj."),
)
_POINTS = "prompt_encoder.point_embed.weight"

# A tensor that, with this shape, only one network has.
_TELLING: dict[str, tuple[str, tuple[int, ...]]] = {
    "vit_b": ("image_encoder.pos_embed", (1, 64, 64, 768)),
    "vit_l": ("image_encoder.pos_embed", (1, 64, 64, 1024)),
    "vit_h": ("image_encoder.pos_embed", (1, 64, 64, 1280)),
    "vit_tiny_test": ("image_encoder.pos_embed", (1, 16, 16, 192)),
    "vit_t": ("image_encoder.layers.1.blocks.0.attn.qkv.weight", (384, 128)),
    "sam2_s": ("image_encoder.backbone.blocks.14.attn.proj.weight", (768, 768)),
    "sam2_t": ("image_encoder.backbone.blocks.10.attn.proj.weight", (768, 768)),
    "sam2_b": ("image_encoder.backbone.blocks.21.attn.proj.weight", (896, 896)),
    "sam2_l": ("image_encoder.backbone.blocks.44.attn.proj.weight", (1152, 1152)),
}


def base_layout(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under the names that the package's networks have.

    Returns:
        The renamed tensors without the parts that no network here has, and the published names of those
        parts, sorted: TinyViT's classifier, HQ-SAM's additions, SAM 2's video memory.

    Example:
        >>> import torch
        >>> zero = torch.zeros(1)
        >>> base_layout({"sam_mask_decoder.iou_token.weight": zero, "maskmem_tpos_enc": zero})
        ({'mask_decoder.iou_token.weight': tensor([0.])}, ['maskmem_tpos_enc'])
    """
    official = any(name.startswith(("image_encoder.trunk.", "sam_mask_decoder.")) for name in state)
    transformers = any(name.startswith("vision_encoder.") for name in state)
    unused = _VIDEO if official or transformers else (*_CLASSIFIER, *_HIGH_QUALITY)
    left_out = sorted(name for name in state if name.startswith(unused))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(unused)}
    if official:
        return _renamed(kept, _SAM_2_OFFICIAL), left_out
    if transformers:
        return _one_by_one(_renamed(kept, _SAM_2_TRANSFORMERS)), left_out
    return kept, left_out


def summarise_names(names: Iterable[str]) -> str:
    """The modules that tensors belong to, with the number of tensors of each.

    Example:
        >>> summarise_names(["mask_decoder.hf_mlp.layers.0.bias", "mask_decoder.hf_mlp.layers.0.weight", "no_obj_ptr"])
        'mask_decoder.hf_mlp (2), no_obj_ptr (1)'
    """
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{module} ({count})" for module, count in counts.items())


def detect_network(state: dict[str, Tensor]) -> str | None:
    """Name of the network that a state dict of :func:`base_layout` belongs to; None if it is of no network here.

    Example:
        >>> import torch
        >>> detect_network({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024)})
        'vit_l'
    """
    for network_name, (name, shape) in _TELLING.items():
        if name in state and tuple(state[name].shape) == shape:
            return network_name
    return None


def _renamed(state: dict[str, Tensor], rules: _Rules) -> dict[str, Tensor]:
    return {_rename(name, rules): tensor for name, tensor in state.items()}


def _rename(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _one_by_one(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split transformers' table of point embeddings into SAM's one embedding a kind of point."""
    points = state.pop(_POINTS, None)
    if points is None:
        return state
    return state | {
        f"prompt_encoder.point_embeddings.{kind}.weight": row[None].clone() for kind, row in enumerate(points)
    }
