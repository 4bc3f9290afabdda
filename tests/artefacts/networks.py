"""Networks whose weights follow from a formula, the same with every version of torch."""

import math
import zlib
from functools import partial

import numpy as np
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import nn

from topolora_monai import networks
from topolora_monai.networks.vit import VitImageEncoder

SIDE = 64


def build(name):
    """``vit_tiny_test``, or ``small``: a segmenter whose whole adapter fits a file of 100 kB."""
    network = networks.build_network("vit_tiny_test", image_size=SIDE) if name == "vit_tiny_test" else _small()
    fill(network.state_dict(), "base")
    return network.eval()


def fill(state, salt):
    """Set tensors in place from their names, by arithmetic that is exact everywhere."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            tensor.fill_(3)
            continue
        generator = np.random.RandomState(zlib.crc32(f"{salt} {name}".encode()))
        values = 2 * generator.random_sample(tuple(tensor.shape)) - 1
        one_dimensional = tensor.ndim < 2
        scale = 0.1 if one_dimensional else math.sqrt(3 * tensor.shape[0] / tensor.numel())
        centre = 1.0 if one_dimensional and name.endswith((".weight", "running_var")) else 0.0
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(centre + scale * values))


def image():
    """Shape (1, 3, 48, 64), values in [0, 1]."""
    values = np.random.RandomState(7).random_sample((1, 3, 48, SIDE))
    return torch.from_numpy(values).float()


def logits(network):
    with torch.no_grad():
        return network.eval()(image())


def statistics(values):
    """Enough of an answer to know it by."""
    flat = values.double().flatten()
    return {
        "mean": flat.mean().item(),
        "std": flat.std().item(),
        "min": flat.min().item(),
        "max": flat.max().item(),
        "every_200th": flat[::200].tolist(),
    }


def _small():
    dim, width = 32, 48
    encoder = ImageEncoderViT(
        img_size=SIDE, embed_dim=width, depth=2, num_heads=3, mlp_ratio=2, out_chans=dim, use_rel_pos=True,
        window_size=3, global_attn_indexes=(1,), norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )  # fmt: skip
    prompts = PromptEncoder(embed_dim=dim, image_embedding_size=(4, 4), input_image_size=(SIDE, SIDE), mask_in_chans=4)
    transformer = TwoWayTransformer(depth=1, embedding_dim=dim, num_heads=4, mlp_dim=32)
    decoder = MaskDecoder(transformer_dim=dim, transformer=transformer, iou_head_hidden_dim=32)
    return networks.SamSegmenter(
        VitImageEncoder(encoder), prompts, networks.MaskDecoder(decoder), SIDE, base_name="small"
    )
