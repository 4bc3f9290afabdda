"""Variants of a benchmark in turns, each in a process of its own, and the table of their times and memory."""

import argparse
import json
import statistics
import subprocess
import sys


def compare(arguments: argparse.Namespace, variants: tuple[str, ...], title: str) -> None:
    """Run this script once for each variant and round, print medians against the first, write them if asked to."""
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for _ in range(arguments.rounds):
        for variant in variants:
            command = [sys.executable, *sys.argv, "--variant", variant]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[variant].append(json.loads(done.stdout.splitlines()[-1]))
    table = {variant: {key: statistics.median(one[key] for one in of) for key in of[0]} for variant, of in runs.items()}
    base = table[variants[0]]
    print(title)
    print(f"{'':20}{'seconds':>9}{'GB':>7}{'time':>8}{'memory':>8}{'GB held':>9}")
    for variant, row in table.items():
        ratios = f"{row['seconds'] / base['seconds']:8.0%}{row['peak_bytes'] / base['peak_bytes']:8.0%}"
        peak, held = row["peak_bytes"] / 1e9, row["held_bytes"] / 1e9
        print(f"{variant:20}{row['seconds']:9.2f}{peak:7.2f}{ratios}{held:9.2f}", end="")
        reached = base.get("flops", 0) / row["seconds"] / row.get("matmul_flops_per_second", 1)
        print(f"   {reached:.0%} of the peak" if reached else "")
    if arguments.json:
        from topolora_monai.engines import provenance, write_json

        settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "variant")}
        origin = {key: provenance()[key] for key in ("command", "commit", "hardware")}
        write_json({**settings, "variants": table, **origin}, arguments.json)
