"""Dice, size and time of a trained adapter as ONNX in float32 and in int8, against the network itself.

    python scripts/quantized_dice.py --adapter runs/drive/adapter.safetensors --weights mobile_sam.pt \
        --dataset_dir DRIVE --json results/int8_drive_vit_t.json

Test images are segmented by overlapping tiles, as in evaluation, and scored inside the field of view at native size,
all at the adapter's threshold. The variants take turns on each image, on as many threads as PyTorch has.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--weights", help="base checkpoint that the adapter was trained on")
    parser.add_argument("--dataset_dir", type=Path, required=True, help="of the data set that it was trained on")
    parser.add_argument("--images", type=int, help="test images to use; all by default")
    parser.add_argument("--overlap", type=float, default=0.25, help="of the tiles")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def load_images(arguments, spec):
    from topolora_monai.data import open_dataset

    data = open_dataset(spec.dataset, arguments.dataset_dir, split_scheme=spec.split_scheme)
    load = spec.loading_transforms(label_values=data.label_values)
    return [load(item) for item in data.items("test")[: arguments.images]]


def measure(variants, images, spec, overlap):
    """Pooled scores and seconds of each variant."""
    from monai.inferers import SimpleInferer

    from topolora_monai.metrics import ThresholdCurve
    from topolora_monai.model.tiling import TileInferer

    inferer = TileInferer(SimpleInferer(), spec.crop_size, overlap, batch_size=1)
    curves, seconds = {name: ThresholdCurve() for name in variants}, dict.fromkeys(variants, 0.0)
    for number, item in enumerate(images, start=1):
        for name, run in variants.items():
            start = time.perf_counter()
            probability = inferer(item["image"][None], run)[0].sigmoid()
            seconds[name] += time.perf_counter() - start
            curves[name].add(probability, item["label"], item["fov"])
        print(f"{number} of {len(images)}", *(f"{name} {value:.0f} s" for name, value in seconds.items()), flush=True)
    rows = {}
    for name, curve in curves.items():
        scores = dataclasses.asdict(curve.scores(spec.threshold))
        rows[name] = scores | {"auc": curve.auc(), "seconds_per_image": seconds[name] / len(images)}
    return rows


def main() -> None:
    arguments = parse_arguments()

    import onnxruntime
    import torch

    from topolora_monai.adapters import read_spec
    from topolora_monai.engines import provenance, write_json
    from topolora_monai.export import export_adapter, quantize
    from topolora_monai.export.formats import onnx_runner
    from topolora_monai.model.network import adapted_network

    spec = read_spec(arguments.adapter)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("fp32", "int8")}
        export_adapter(arguments.adapter, files["fp32"], "onnx", arguments.weights)
        quantize(files["fp32"], files["int8"])
        network = adapted_network(arguments.adapter, arguments.weights)
        variants = {"network": network} | {name: onnx_runner(path) for name, path in files.items()}
        images = load_images(arguments, spec)
        with torch.inference_mode():
            rows = measure(variants, images, spec, arguments.overlap)
        for name, path in files.items():
            rows[name]["bytes"] = path.stat().st_size
    record = {
        "dataset": spec.dataset,
        "network_name": spec.network_name,
        "images": arguments.images or "all",
        "overlap": arguments.overlap,
        "threshold": spec.threshold,
        "threads": torch.get_num_threads(),
        "variants": rows,
        "dice_loss": rows["fp32"]["dice"] - rows["int8"]["dice"],
        "time_int8_to_fp32": rows["int8"]["seconds_per_image"] / rows["fp32"]["seconds_per_image"],
        "size_int8_to_fp32": rows["int8"]["bytes"] / rows["fp32"]["bytes"],
        **provenance(),
        "onnxruntime": onnxruntime.__version__,
    }
    for name, row in rows.items():
        print(f"{name:8} Dice {row['dice']:.4f}  {row['seconds_per_image']:.1f} s an image", end="")
        print(f"  {row['bytes'] / 1e6:.1f} MB" if "bytes" in row else "")
    if arguments.json:
        write_json(record, arguments.json)


if __name__ == "__main__":
    main()
