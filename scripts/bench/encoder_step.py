"""Time and memory of one LoRA training step of SAM's image encoder: original computation against ours.

    python scripts/bench/encoder_step.py --network_name vit_b --precision fp32
    python scripts/bench/encoder_step.py --network_name vit_b --precision bf16 --device cuda --batch_size 4

Each variant runs in a process of its own, in turns; the table gives the median time of warm steps, the peak
resident memory of the first step in a fresh process, the ratios, and what the process holds after all steps, which
includes memory that the allocator has not given back; on a GPU the peak and the rest of its own memory. Last comes the
share of the device's peak, which a product of large matrices reaches in that precision: the original's operations a
second by the product's, so that what is computed twice counts once. Weights are random: they change nothing of it.
"""

import argparse
import json
import statistics
import time

from turns import compare

VARIANTS = ("original", "ours", "ours, checkpointed")
WARM_UP = 2  # steps until the allocator has taken the memory that it keeps


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network_name", default="vit_b", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--image_size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a process, after the warm-up")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each variant")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run one variant in this process."""
    import contextlib
    import resource

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from topolora_monai.adapters import AdaptationConfig, adapt
    from topolora_monai.networks import build_network

    device, size = torch.device(arguments.device), arguments.image_size
    on_gpu = device.type == "cuda"
    if arguments.variant == "original":
        network = original(arguments.network_name, size)
    else:
        checkpointed = arguments.variant == "ours, checkpointed"
        network = build_network(arguments.network_name, image_size=size, activation_checkpointing=checkpointed)
    adapt(network, AdaptationConfig.from_dict({"lora": True}))
    network.train().to(device)
    image = torch.randn(arguments.batch_size, 3, size, size, device=device)
    bf16 = arguments.precision == "bf16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext():
            embedding = network.image_encoder(image)
        embedding.float().square().mean().backward()
        if on_gpu:
            torch.cuda.synchronize()

    def memory() -> tuple[int, int]:
        if on_gpu:
            return torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved()
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return used, used

    seconds, peak = [], 0
    for _ in range(WARM_UP + arguments.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        peak = peak or memory()[0]
    held = memory()[1]
    with FlopCounterMode(display=False) as counter:
        step()
    return {
        "seconds": statistics.median(seconds[WARM_UP:]),
        "peak_bytes": peak,
        "held_bytes": held,
        "flops": counter.get_total_flops(),
        "matmul_flops_per_second": matmul_rate(device, torch.bfloat16 if bf16 else torch.float32),
    }


def original(network_name: str, image_size: int):
    """SAM as published, with an encoder for images of another size than its own."""
    from functools import partial

    from segment_anything import sam_model_registry
    from torch import nn

    network = sam_model_registry[network_name]()
    encoder = network.image_encoder
    if image_size != encoder.img_size:
        network.image_encoder = type(encoder)(
            img_size=image_size,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=14,
            embed_dim=encoder.pos_embed.shape[-1],
            depth=len(encoder.blocks),
            num_heads=encoder.blocks[0].attn.num_heads,
            global_attn_indexes=[n for n, block in enumerate(encoder.blocks) if block.window_size == 0],
        )
    return network


def matmul_rate(device, dtype) -> float:
    """Operations a second of a product of large matrices, the best of several."""
    import torch

    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 1024
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(20 if on_gpu else 3):
        start = time.perf_counter()
        one @ other
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def main() -> None:
    arguments = parse_arguments()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    compare(
        arguments,
        VARIANTS,
        f"{arguments.network_name}, {arguments.image_size} px, batch {arguments.batch_size}, {arguments.precision}, "
        "LoRA forward + backward",
    )


if __name__ == "__main__":
    main()
