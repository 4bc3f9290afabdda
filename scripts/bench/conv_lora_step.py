"""Time and memory of one Conv-LoRA training step of SAM's image encoder: the published algorithm against ours.

    python scripts/bench/conv_lora_step.py --network_name vit_b --precision fp32

"published" is a transcription of the reference's algorithm (one adapter on every block's fused projection, experts
one after another, answers combined through exp and log) in SAM's original encoder; "our layer" puts ours into the
same encoder, "ours" into our encoder. Each variant runs in a process of its own, in turns; the table gives the median
time of warm steps, the peak resident memory of the first step in a fresh process, the ratios, and what the process
holds after all steps. Weights are random: they change neither.
"""

import argparse
import json
import statistics
import time

from turns import compare

VARIANTS = ("published", "our layer", "ours", "ours, checkpointed")
ENCODERS = {
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    "vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
}
WARM_UP = 2  # steps until the allocator has taken the memory that it keeps


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network_name", default="vit_b", choices=ENCODERS)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--image_size", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--gate", default="learned", choices=["learned", "published"], help="of our layer")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a process, after the warm-up")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each variant")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def published_layer(linear):
    """The reference's layer around a linear one, with the balance loss kept in ``loss``."""
    import math

    import torch
    import torch.nn.functional as F
    from torch import nn

    rank, alpha, scales = 3, 32, range(1, 9)

    class Published(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear
            self.down = nn.Parameter(torch.empty(rank, linear.in_features))
            self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
            self.experts = nn.ModuleList(nn.Sequential(nn.Conv2d(rank, rank, 3, padding=1), nn.GELU()) for _ in scales)
            self.gate = nn.Parameter(torch.zeros(rank, len(scales)))
            self.noise = nn.Parameter(torch.zeros(rank, len(scales)))

        def forward(self, x):
            result = self.linear(x)
            z = (x @ self.down.T).permute(0, 3, 1, 2).contiguous()
            gates, self.loss = self.route(z)
            z = z + self.mix(z, gates)
            result += z.permute(0, 2, 3, 1).contiguous() @ self.up.T * (alpha / rank)
            return result

        def route(self, z):
            pooled = F.adaptive_avg_pool2d(z, 1).flatten(1)
            clean = pooled @ self.gate
            spread = F.softplus(pooled @ self.noise) + 1e-2
            noisy = clean + torch.randn_like(clean) * spread
            top, index = noisy.topk(2, dim=1)
            gates = torch.zeros_like(noisy).scatter(1, index[:, :1], top[:, :1].softmax(1).to(noisy.dtype))
            within = noisy > top[:, 1:]
            standard = torch.distributions.Normal(0.0, 1.0)
            chance = torch.where(
                within, standard.cdf((clean - top[:, 1:]) / spread), standard.cdf((clean - top[:, :1]) / spread)
            )
            return gates, 1e-2 * (variation(gates.sum(0)) + variation(chance.sum(0)))

        def mix(self, z, gates):
            size = z.shape[-2:]
            unit = gates.t().nonzero()[:, 1]  # in order of experts
            answers = []
            for index, batch in enumerate(z[unit].split((gates > 0).sum(0).tolist())):
                if not len(batch):
                    continue
                scale = scales[index]
                large = F.interpolate(batch, scale_factor=scale, mode="bicubic") if scale > 1 else batch
                answer = self.experts[index](large)
                answers.append(F.interpolate(answer, size=size, mode="bicubic") if scale > 1 else answer)
            stitched = torch.cat(answers).float().exp()
            combined = torch.zeros_like(z, dtype=torch.float32).index_add(0, unit, stitched)
            return torch.where(combined == 0, torch.finfo(torch.float64).eps, combined).log()

    def variation(amount):
        return amount.float().var() / (amount.float().mean() ** 2 + 1e-10)

    return Published()


def build_encoder(arguments: argparse.Namespace):
    from functools import partial

    from peft import inject_adapter_in_model
    from segment_anything.modeling import ImageEncoderViT
    from torch import nn

    from topolora_monai.adapters.conv_lora import ConvLoraConfig
    from topolora_monai.networks.vit import VitImageEncoder

    encoder = ImageEncoderViT(
        img_size=arguments.image_size,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        **ENCODERS[arguments.network_name],
    ).requires_grad_(False)
    if arguments.variant == "published":
        for block in encoder.blocks:
            block.attn.qkv = published_layer(block.attn.qkv)
        return encoder
    if arguments.variant.startswith("ours"):
        encoder = VitImageEncoder(encoder, activation_checkpointing="checkpointed" in arguments.variant)
    return inject_adapter_in_model(ConvLoraConfig(target_modules=["qkv"], gate=arguments.gate), encoder)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run one variant in this process."""
    import contextlib
    import resource

    import torch

    from topolora_monai.adapters.conv_lora import balance_loss

    torch.manual_seed(0)
    encoder = build_encoder(arguments).train()
    image = torch.randn(arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    autocast = torch.autocast("cpu", torch.bfloat16) if arguments.precision == "bf16" else contextlib.nullcontext()
    seconds, peaks = [], []
    for _ in range(WARM_UP + arguments.steps):
        start = time.perf_counter()
        with autocast:
            embedding = encoder(image)
        if arguments.variant == "published":
            balance = sum(block.attn.qkv.loss for block in encoder.blocks)
        else:
            balance = balance_loss(encoder)
        (embedding.float().square().mean() + balance).backward()
        seconds.append(time.perf_counter() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"seconds": statistics.median(seconds[WARM_UP:]), "peak_bytes": peaks[0], "held_bytes": peaks[-1]}


def main() -> None:
    arguments = parse_arguments()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    setting = f"{arguments.image_size} px, batch {arguments.batch_size}, {arguments.precision}"
    compare(arguments, VARIANTS, f"{arguments.network_name}, {setting}, Conv-LoRA forward + backward")


if __name__ == "__main__":
    main()
