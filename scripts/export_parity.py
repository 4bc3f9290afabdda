"""Difference between a network and its exported files on real images.

    python scripts/export_parity.py --network_name vit_t --weights mobile_sam.pt --image_size 512 --dataset_dir DRIVE

The network is adapted by a preset whose weights are then disturbed, so that merging is part of the check. Each file is
written, loaded again and run on centres of test images of DRIVE, one by one and as a batch of three. Differences are
the largest of all pixels, divided by the range of the network's logits; at most 1e-4 is accepted.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network_name", default="vit_t")
    parser.add_argument("--weights", help="checkpoint; random weights without it")
    parser.add_argument("--preset", default="topolora")
    parser.add_argument("--image_size", type=int, default=512)
    parser.add_argument("--formats", nargs="+", default=["pt2", "onnx", "torchscript"])
    parser.add_argument("--dataset_dir", type=Path, required=True, help="folder of DRIVE")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def disturbed_network(arguments):
    import torch

    from topolora_monai.adapters import adapt, preset_config
    from topolora_monai.networks import build_network

    network = build_network(arguments.network_name, weights=arguments.weights, image_size=arguments.image_size)
    adaptation = adapt(network, preset_config(arguments.preset))
    generator = torch.Generator().manual_seed(0)
    for parameter in adaptation.trainable().values():
        spread = parameter.detach().square().mean().sqrt().clamp(min=1e-3)
        parameter.data += 0.1 * spread * torch.randn(parameter.shape, generator=generator)
    return adaptation.network.requires_grad_(False)


def real_images(folder: Path, side: int):
    import torch
    from monai.transforms import CenterSpatialCrop

    from topolora_monai.data import open_dataset
    from topolora_monai.transforms import LoadItem

    items = open_dataset("drive", folder).items("test")[:3]
    crop = CenterSpatialCrop([side, side])
    return torch.stack([crop(LoadItem(3)(item)["image"]) for item in items])


def main() -> None:
    arguments = parse_arguments()

    import torch

    from topolora_monai.engines import provenance, write_json
    from topolora_monai.export import EXPORT_FORMATS, PARITY, export_network
    from topolora_monai.export.formats import run_written

    network = disturbed_network(arguments)
    images = real_images(arguments.dataset_dir, min(arguments.image_size, 512))
    with torch.inference_mode():
        expected = torch.cat([network(image[None]) for image in images])
    spread = expected.max() - expected.min()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.formats:
            path = Path(folder) / f"network{EXPORT_FORMATS[name]}"
            start = time.perf_counter()
            export_network(network, path, name, tuple(images.shape[-2:]), images=images[:2])
            seconds = time.perf_counter() - start
            run = run_written(path, name)
            single = torch.cat([run(image[None]) for image in images])
            differences = [float((found - expected).abs().max() / spread) for found in (single, run(images))]
            rows[name] = {"difference": max(differences), "bytes": path.stat().st_size, "export_seconds": seconds}
            verdict = "ok" if rows[name]["difference"] <= PARITY else "TOO LARGE"
            print(f"{name:12} {rows[name]['difference']:.1e} {verdict}  {rows[name]['bytes'] / 1e6:.0f} MB", flush=True)
            path.unlink()
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("network_name", "preset", "image_size")}
        record = settings | {"range_of_logits": float(spread), "formats": rows, **provenance()}
        write_json(record, arguments.json)
    sys.exit(any(row["difference"] > PARITY for row in rows.values()))


if __name__ == "__main__":
    main()
