"""Time and memory of one LoRA training step of SAM's image encoder: original computation against ours.

    python scripts/bench/encoder_step.py --network_name vit_b --precision fp32

Each variant runs in a process of its own, in turns; the table gives the median time of warm steps, the peak
resident memory of the first step in a fresh process, the ratios, and what the process holds after all steps, which
includes memory that the allocator has not given back. Weights are random: they change neither.
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
    from segment_anything import sam_model_registry

    from topolora_monai.adapters import AdaptationConfig, adapt
    from topolora_monai.networks import build_network

    if arguments.variant == "original":
        network = sam_model_registry[arguments.network_name]()
    else:
        checkpointed = arguments.variant == "ours, checkpointed"
        network = build_network(arguments.network_name, activation_checkpointing=checkpointed)
    adapt(network, AdaptationConfig.from_dict({"lora": True}))
    network.train()
    image = torch.randn(1, 3, 1024, 1024)
    autocast = torch.autocast("cpu", torch.bfloat16) if arguments.precision == "bf16" else contextlib.nullcontext()
    seconds, peaks = [], []
    for _ in range(WARM_UP + arguments.steps):
        start = time.perf_counter()
        with autocast:
            embedding = network.image_encoder(image)
        embedding.float().square().mean().backward()
        seconds.append(time.perf_counter() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"seconds": statistics.median(seconds[WARM_UP:]), "peak_bytes": peaks[0], "held_bytes": peaks[-1]}


def main() -> None:
    arguments = parse_arguments()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    compare(
        arguments,
        VARIANTS,
        f"{arguments.network_name}, 1024 px, batch 1, {arguments.precision}, LoRA forward + backward",
    )


if __name__ == "__main__":
    main()
