"""Memory and time of segmenting a large georeferenced scene, and its continuation after a kill.

    python scripts/bench/scene.py --size 20000 --network stub --json results/scene_20000.json

A seeded scene of radar backscatter in dB (a winding water body under speckle, a corner of nodata) is segmented three
times in processes of its own: once from end to end, once killed by SIGKILL when half of the bands of tiles are done,
and once more to continue from there. Memory is the peak of the resident memory above what the process holds once the
network is loaded. ``stub`` is a network that costs next to nothing per pixel, so that the machinery itself is measured;
the weights of the others are random, which changes neither time nor memory.
"""

import argparse
import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

NETWORKS = {"stub": 192, "vit_tiny_test": 64, "vit_t": 256}  # and the side of their tiles
ROWS = 512  # of the scene, generated at a time
OUTPUTS = ("scene_mask.tif", "scene_probability.tif")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000, help="side of the scene in pixels")
    parser.add_argument("--network", default="stub", choices=sorted(NETWORKS))
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--folder", help="where scene and results go, and stay; otherwise a temporary folder")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--child", choices=["generate", "segment"], help=argparse.SUPPRESS)
    return parser.parse_args()


def generate(path: Path, size: int) -> None:
    """Write a scene of float32 dB, by rows."""
    import rasterio

    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "height": size, "width": size, "nodata": -9999}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 3, "zlevel": 1}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 300_000, 0, -10, 5_000_000)}
    column = np.arange(size, dtype=np.float32)
    with rasterio.open(path, "w", **profile, **layout, **place, BIGTIFF="IF_SAFER") as file:
        for top in range(0, size, ROWS):
            rows = np.arange(top, min(top + ROWS, size), dtype=np.float32)[:, None]
            middle = size / 2 + size / 5 * np.sin(7 * rows / size)
            water = np.abs(column - middle) < size / 12 * (1 + 0.3 * np.sin(40 * rows / size))
            speckle = np.random.default_rng(top).standard_exponential((len(rows), size), dtype=np.float32)
            backscatter = np.where(water, -19, -9) + 10 * np.log10(np.maximum(speckle, 1e-4))
            backscatter = np.where(rows + column < size / 4, -9999, backscatter)
            file.write(backscatter.astype(np.float32), 1, window=((top, top + len(rows)), (0, size)))


def segment(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Segment the scene in this process."""
    import psutil
    import torch
    from monai.inferers import SimpleInferer

    from topolora_monai.engines import AutocastInferer, default_precision
    from topolora_monai.model.scenes import SceneSegmenter
    from topolora_monai.model.tiling import TileInferer
    from topolora_monai.transforms.intensity import IntensityScaling

    crop_size = NETWORKS[arguments.network]
    if arguments.network == "stub":
        network = torch.nn.Identity()
    else:
        from topolora_monai.networks import build_network

        network = build_network(arguments.network, image_size=crop_size, in_channels=1)
    tiles = 0

    class Counted(SimpleInferer):
        def __call__(self, batch, network):
            nonlocal tiles
            tiles += len(batch)
            return super().__call__(batch, network)

    inferer = AutocastInferer(Counted(), "fp32" if arguments.network == "stub" else default_precision("cpu"))
    inferer(torch.zeros(arguments.batch_size, 1, crop_size, crop_size), network.eval())
    tiles = -1  # less the one that tells the number of classes
    segmenter = SceneSegmenter(
        network,
        TileInferer(inferer, crop_size, arguments.overlap, arguments.batch_size),
        channels=1,
        scaling=IntensityScaling("db"),
        output_dir=folder / "output",
        fingerprint=arguments.network,
    )
    loaded = psutil.Process().memory_info().rss
    start = time.perf_counter()
    segmenter.run([{"name": "scene", "image": str(folder / "scene.tif")}])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"tiles": tiles, "seconds": seconds, "loaded_bytes": loaded, "peak_above_loaded_bytes": peak - loaded}


def command(arguments: argparse.Namespace, folder: Path, child: str) -> list[str]:
    settings = [f"--{key}={getattr(arguments, key)}" for key in ("size", "network", "overlap", "batch_size")]
    return [sys.executable, __file__, *settings, f"--folder={folder}", f"--child={child}"]


def finish(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Segment until done; figures of the process."""
    done = subprocess.run(command(arguments, folder, "segment"), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def kill_midway(arguments: argparse.Namespace, folder: Path, bands: int) -> dict[str, float]:
    """Kill a run once half of its bands are there; how many are."""
    process = subprocess.Popen(command(arguments, folder, "segment"), stdout=subprocess.DEVNULL)
    start = time.perf_counter()

    def finished() -> int:
        return len(list((folder / "output" / ".scene.parts").glob("rows-*.npy.gz")))

    while finished() < bands // 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return {"seconds": time.perf_counter() - start, "bands": finished()}


def count_bands(arguments: argparse.Namespace) -> int:
    from monai.data.utils import dense_patch_slices

    crop_size = NETWORKS[arguments.network]
    step = max(int(crop_size * (1 - arguments.overlap)), 1)
    return len(dense_patch_slices((max(arguments.size, crop_size),), (crop_size,), (step,)))


def digests(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / "output" / name).read_bytes()).hexdigest() for name in OUTPUTS]


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "output", ignore_errors=True)
    if not (folder / "scene.tif").exists():
        subprocess.run(command(arguments, folder, "generate"), check=True)
    bands = count_bands(arguments)
    whole = finish(arguments, folder)
    expected = digests(folder)
    sizes = {name: (folder / "output" / name).stat().st_size for name in OUTPUTS}
    shutil.rmtree(folder / "output")
    killed = kill_midway(arguments, folder, bands)
    continued = finish(arguments, folder)
    return {
        "bands": bands,
        "scene_bytes": (folder / "scene.tif").stat().st_size,
        "output_bytes": sizes,
        "uninterrupted": {**whole, "tiles_per_second": whole["tiles"] / whole["seconds"]},
        "killed": killed,
        "continued": {**continued, "tiles_per_second": continued["tiles"] / continued["seconds"]},
        "same_files": digests(folder) == expected,
    }


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        folder = Path(arguments.folder)
        if arguments.child == "generate":
            generate(folder / "scene.tif", arguments.size)
        else:
            print(json.dumps(segment(arguments, folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments, Path(arguments.folder or temporary).absolute())
    print(f"{arguments.size} x {arguments.size} pixels, {arguments.network}, overlap {arguments.overlap}")
    print(f"{'':15}{'tiles':>8}{'seconds':>9}{'tiles/s':>9}{'GB above the loaded network':>29}")
    for name in ("uninterrupted", "continued"):
        row = figures[name]
        print(
            f"{name:15}{row['tiles']:8d}{row['seconds']:9.1f}{row['tiles_per_second']:9.0f}"
            f"{row['peak_above_loaded_bytes'] / 1e9:29.2f}"
        )
    print(f"killed after {figures['killed']['bands']} of {figures['bands']} bands of tiles")
    print(f"files equal to those of the uninterrupted run: {'yes' if figures['same_files'] else 'NO'}")
    if arguments.json:
        from topolora_monai.engines import provenance, write_json

        settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "child", "folder")}
        write_json({**settings, **figures, **{k: provenance()[k] for k in ("commit", "hardware")}}, arguments.json)


if __name__ == "__main__":
    main()
