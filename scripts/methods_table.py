"""Write the table of docs/methods.md: what every preset trains and costs, from the registry and one measurement.

    python scripts/methods_table.py            # from the registry and the measured file as it is
    python scripts/methods_table.py --measure  # measure first, some minutes

Measured is a training step (forward, backward, AdamW) with random weights in float32 on one thread. Each preset runs
in a fresh process, one after the other, that starts with the libraries loaded; the table gives the median processor
time of warm steps against that of decoder_only, and the process's peak resident memory up to the end of its first step.
"""

import argparse
import functools
import json
import multiprocessing
import statistics
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods.md"
MEASURED = ROOT / "results" / "methods_vit_t.json"
START, END = "<!-- table by scripts/methods_table.py -->\n", "<!-- end of table -->\n"
BASE = "decoder_only"
WARM_UP = 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure again")
    parser.add_argument("--network_name", default="vit_t")
    parser.add_argument("--image_size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after the warm-up")
    return parser.parse_args()


def measure(preset: str, network_name: str, image_size: int, steps: int) -> dict[str, float]:
    """Train one preset for some steps in this process."""
    import resource

    import torch

    from topolora_monai.adapters import adapt, balance_loss, preset_config
    from topolora_monai.networks import build_network

    torch.set_num_threads(1)
    network = build_network(network_name, image_size=image_size)
    adaptation = adapt(network, preset_config(preset))
    network.train()
    optimizer = torch.optim.AdamW(adaptation.trainable().values(), lr=1e-4)
    image = torch.rand(1, 3, image_size, image_size)
    seconds, peaks = [], []
    for _ in range(WARM_UP + steps):
        start = time.process_time()
        optimizer.zero_grad()
        loss = network(image).square().mean() + balance_loss(network)
        loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {"seconds": statistics.median(seconds[WARM_UP:]), "peak_bytes": peaks[0]}


def measure_all(network_name: str, image_size: int, steps: int) -> None:
    """Measure every preset and write the file."""
    from topolora_monai.adapters import PRESETS
    from topolora_monai.engines import provenance, write_json

    settings = {"network_name": network_name, "image_size": image_size, "steps": steps}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["topolora_monai.engines", "topolora_monai.networks"])
    with context.Pool(1, maxtasksperchild=1) as pool:
        measured = dict(zip(PRESETS, pool.imap(functools.partial(measure, **settings), PRESETS), strict=True))
    origin = {key: provenance()[key] for key in ("commit", "hardware")}
    write_json({**settings, "precision": "fp32", "threads": 1, "variants": measured, **origin}, MEASURED)


def table(measured: dict) -> str:
    """Rows in the registry's order, as Markdown."""
    from topolora_monai.adapters import PRESETS
    from topolora_monai.adapters.inspection import summarize_preset

    base = measured["variants"][BASE]["seconds"]
    lines = [
        "| `preset` | what trains | paper | trainable | file | mergeable | step time | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for preset in PRESETS:
        row, cost = summarize_preset(preset, measured["network_name"]), measured["variants"][preset]
        paper = f"[{row.paper}](https://arxiv.org/abs/{row.paper})" if row.paper else ""
        size = f"{row.file_bytes / 1e6:.1f} MB"
        took, peak = f"{cost['seconds'] / base:.2f}", f"{cost['peak_bytes'] / 1e9:.2f} GB"
        cells = (f"`{preset}`", row.trains, paper, f"{row.trainable:,}", size, row.mergeable, took, peak)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(text: str, measured: dict) -> str:
    """The page with its table replaced."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{table(measured)}{END}{after}"


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure:
        measure_all(arguments.network_name, arguments.image_size, arguments.steps)
    PAGE.write_text(page(PAGE.read_text(), json.loads(MEASURED.read_text())))


if __name__ == "__main__":
    main()
