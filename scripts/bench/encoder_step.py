"""Time and memory of one LoRA training step of SAM's image encoder: original computation against ours.

    python scripts/bench/encoder_step.py --network_name vit_b --precision fp32

Each variant runs in a process of its own, in turns; the table gives the median time of warm steps, the peak
resident memory of the first step in a fresh process, the ratios, and what the process holds after all steps, which
includes memory that the allocator has not given back. Weights are random: they change neither.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

VARIANTS = ("original", "ours", "ours, checkpointed")
MEASURES = ("seconds", "peak_bytes", "held_bytes")
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

    from topolora_monai.adapters import AdaptationConfig, LoraSettings, adapt
    from topolora_monai.networks import build_network

    if arguments.variant == "original":
        network = sam_model_registry[arguments.network_name]()
    else:
        checkpointed = arguments.variant == "ours, checkpointed"
        network = build_network(arguments.network_name, activation_checkpointing=checkpointed)
    adapt(network, AdaptationConfig(lora=LoraSettings()))
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
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.rounds):
        for variant in VARIANTS:
            command = [sys.executable, *sys.argv, "--variant", variant]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs[variant].append(json.loads(done.stdout.splitlines()[-1]))
    table = {
        variant: {key: statistics.median(one[key] for one in of) for key in MEASURES} for variant, of in runs.items()
    }
    base = table["original"]
    print(f"{arguments.network_name}, 1024 px, batch 1, {arguments.precision}, LoRA forward + backward")
    print(f"{'':20}{'seconds':>9}{'GB':>7}{'time':>8}{'memory':>8}{'GB held':>9}")
    for variant, row in table.items():
        ratios = f"{row['seconds'] / base['seconds']:8.0%}{row['peak_bytes'] / base['peak_bytes']:8.0%}"
        peak, held = row["peak_bytes"] / 1e9, row["held_bytes"] / 1e9
        print(f"{variant:20}{row['seconds']:9.2f}{peak:7.2f}{ratios}{held:9.2f}")
    if arguments.json:
        from topolora_monai.engines import provenance, write_json

        settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "variant")}
        write_json(
            {**settings, "variants": table, **{k: provenance()[k] for k in ("commit", "hardware")}}, arguments.json
        )


if __name__ == "__main__":
    main()
