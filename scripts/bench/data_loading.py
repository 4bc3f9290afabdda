"""Whether data loading keeps up with training: samples a second of the bundle's loader against its training step.

    python scripts/bench/data_loading.py --network_name vit_t

Both come from train.yaml itself, with its transforms, sizes and batch. Weights are random: they change neither.
"""

import argparse
import statistics
import time
from pathlib import Path

from monai.bundle import ConfigParser

CONFIG = Path(__file__).parents[2] / "bundles/topolora_sam_segmentation/configs/train.yaml"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", default="synthetic_vessels")
    parser.add_argument("--dataset_dir")
    parser.add_argument("--network_name", default="vit_t")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the loader, after one that fills the cache")
    parser.add_argument("--steps", type=int, default=4, help="timed training steps, after one to warm up")
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


def configured(arguments: argparse.Namespace, **overrides) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({name: getattr(arguments, name) for name in ("dataset_name", "dataset_dir", "network_name")})
    if arguments.dataset_name not in ("synthetic_vessels", "folder"):
        parser["data#allow_partial"] = True
    parser.update(overrides)
    parser.parse()
    return parser


def loader_speed(parser: ConfigParser, epochs: int) -> float:
    """Median samples a second over whole passes."""
    loader = parser.get_parsed_content("train#dataloader")
    speeds = []
    for _ in range(epochs + 1):
        start = time.perf_counter()
        samples = sum(len(batch["image"]) for batch in loader)
        speeds.append(samples / (time.perf_counter() - start))
    return statistics.median(speeds[1:])


def training_speed(parser: ConfigParser, steps: int) -> float:
    """Median samples a second of forward, loss, backward and update."""
    from topolora_monai.engines import prepare_batch

    network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss", "optimizer"))
    inferer, device = (parser.get_parsed_content(name) for name in ("train#inferer", "device"))
    image, target = prepare_batch(next(iter(parser.get_parsed_content("train#dataloader"))), device)
    network.train()
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(inferer(image, network), target).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return len(image) / statistics.median(seconds[1:])


def main() -> None:
    arguments = parse_arguments()
    speeds = {
        "loader, images cached": loader_speed(configured(arguments), arguments.epochs),
        "loader, images read each time": loader_speed(
            configured(arguments, **{"train#cache_rate": 0.0}), arguments.epochs
        ),
        f"{arguments.network_name} training step": training_speed(configured(arguments), arguments.steps),
    }
    consumed = speeds[f"{arguments.network_name} training step"]
    print(f"{arguments.dataset_name}, {arguments.network_name}, batch and sizes of train.yaml")
    print(f"{'':34}{'samples/s':>10}{'times the step':>16}")
    for name, speed in speeds.items():
        print(f"{name:34}{speed:10.2f}{speed / consumed:16.1f}")
    if arguments.json:
        from topolora_monai.engines import provenance, write_json

        settings = {"dataset_name": arguments.dataset_name, "network_name": arguments.network_name}
        origin = {key: provenance()[key] for key in ("commit", "hardware")}
        write_json({**settings, "samples_per_second": speeds, **origin}, arguments.json)


if __name__ == "__main__":
    main()
