"""The ways that a file takes through the package: what users start, in this process.

Each takes the file and a folder to write to, and gives back the values that were read, (items, channels, H, W), or None
where there are none to compare. What it refuses is an error of the package; a command's message is one, too.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch

from tests.corpus.archives import CREATES
from tests.corpus.images import RANGE
from topolora_monai.errors import ConfigError, TopoLoRAError

_SCALING = (0.0, RANGE)


class RefusedError(TopoLoRAError):
    """A command ended with a message."""


class LeftBehindError(Exception):
    """Something lies where nothing should."""


def _command(*words: object) -> str:
    from topolora_monai.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in words])
    if status:
        table, _, defects = out.getvalue().partition("defect in ")
        raise RefusedError((defects or table) + err.getvalue())
    return out.getvalue()


def _root(file: Path) -> Path:
    """What stands for the whole data set: a list itself, or the folder that holds the splits."""
    if file.suffix.lower() in (".json", ".csv"):
        return file
    return file.parents[2]


def data_verify(file: Path, out: Path) -> None:
    """``topolora data verify``."""
    _command("data", "verify", "folder", _root(file), "--all_notes")


def folder_verify(file: Path, out: Path) -> None:
    """The same of the folder that a file lies in."""
    _command("data", "verify", "folder", file.parent, "--all_notes")


def training_start(file: Path, out: Path) -> np.ndarray | None:
    """What ``train.yaml`` does before its first step."""
    return _training(_root(file), file)


def folder_training(file: Path, out: Path) -> np.ndarray | None:
    """The same of the folder that a file lies in."""
    return _training(file.parent, file)


def _training(root: Path, file: Path) -> np.ndarray | None:
    from topolora_monai.data import check_items, open_dataset
    from topolora_monai.transforms import IntensityScaling, LoadItem

    data = open_dataset("folder", str(root))
    items = [item for split in ("training", "validation", "test") for item in data.items(split)]
    check_items(items, data.label_values)
    load = LoadItem(data.channels, IntensityScaling(value_range=_SCALING), data.label_values, 1)
    found = []
    for item in items:
        loaded = load(item)
        _require_sane(loaded["image"], loaded["label"], loaded["fov"])
        found += [loaded[key] for key in ("image", "label") if item[key] == str(file)]
    return torch.stack(list(found)).numpy() if found else None


def inference_start(file: Path, out: Path) -> np.ndarray | None:
    """What ``inference.yaml`` does before the network is asked, for a file alone and for its folder."""
    from topolora_monai.data import check_items, find_images
    from topolora_monai.io import image_kind, open_raster, read_bands
    from topolora_monai.model.scenes.reading import open_scene
    from topolora_monai.transforms import IntensityScaling, LoadItem

    scaling = IntensityScaling(value_range=_SCALING)
    found: list[torch.Tensor] = []
    for source in (file.parent, file):
        items = find_images(source)
        check_items(items)
        found = []
        for item in items:
            if image_kind(item["image"]) == "raster":
                scene = open_scene(item["name"], Path(item["image"]), 3, 32, 0.0)
                with open_raster(scene.path) as dataset:
                    values, valid = read_bands(dataset, 3)
                image = torch.from_numpy(scaling.apply(values, scene.limits(scaling)) * valid)
                _require_valid(valid.any(), item["image"])
            else:
                loaded = LoadItem(3, scaling)(item)
                image = loaded["image"]
                _require_valid(bool(loaded["fov"].any()), item["image"])
            _require_sane(image)
            found += [image] if item["image"] == str(file) else []
    return torch.stack(found).numpy() if found else None


def _require_valid(valid: bool, path: str) -> None:
    """An image without a valid pixel is segmented as background everywhere, and says so: no reading of it is wrong."""
    if not valid:
        raise RefusedError(f"no valid pixel: {path}")


def _require_sane(*tensors: torch.Tensor) -> None:
    for tensor in tensors:
        if not bool(torch.isfinite(tensor).all()) or float(tensor.min()) < 0 or float(tensor.max()) > 1:
            raise AssertionError(f"values from {float(tensor.min())} to {float(tensor.max())} were read")


# ---- adapters


def _network(file: Path):
    from topolora_monai.networks import build_network

    return build_network("vit_tiny_test", image_size=64)


def adapter_info(file: Path, out: Path) -> None:
    """``topolora adapter info``, as a table and as JSON."""
    _command("adapter", "info", file)
    _command("adapter", "info", file, "--json")


def adapter_verify(file: Path, out: Path) -> None:
    """``topolora adapter verify``."""
    _command("adapter", "verify", file)


def adapter_merge(file: Path, out: Path) -> None:
    """``topolora adapter merge``, and the merged network read back."""
    from topolora_monai.release.merged_file import load_merged

    target = out / "merged.safetensors"
    try:
        _command("adapter", "merge", file, "--out", target)
    except RefusedError:
        if list(out.iterdir()):
            raise AssertionError(f"refused, but {[path.name for path in out.iterdir()]} was written") from None
        raise
    load_merged(target)


def adapter_load(file: Path, out: Path) -> None:
    """``load_adapter`` on the network that it is for."""
    from topolora_monai.adapters import load_adapter

    network = load_adapter(_network(file), file).network
    with torch.inference_mode():
        logits = network(torch.rand(1, 3, 32, 32))
    if not bool(torch.isfinite(logits).all()):
        raise AssertionError("logits are not finite")


def adapter_library(file: Path, out: Path) -> None:
    """As the annotation server loads it."""
    from topolora_monai.adapters import AdapterLibrary

    AdapterLibrary(_network(file)).load("broken", file)


def adapter_inference(file: Path, out: Path) -> None:
    """``inference.yaml`` on one picture."""
    from monai.bundle import create_workflow
    from PIL import Image

    from tests.bundles.helpers import CONFIGS
    from tests.corpus.images import PHOTO

    Image.fromarray(np.tile(PHOTO, (4, 4, 1))).save(out / "picture.png")
    try:
        create_workflow(
            config_file=str(CONFIGS / "inference.yaml"), workflow_type="inference", adapter=str(file), device="cpu",
            input=str(out / "picture.png"), output_dir=str(out / "masks"), precision="fp32", overlap=0.0,
        ).run()  # fmt: skip
    except Exception as error:
        raise _own_error(error) from error
    masks = list((out / "masks").glob("*_mask*.png"))
    if len(masks) != 1 or Image.open(masks[0]).size != (80, 96):
        raise AssertionError(f"{len(masks)} masks were written")


def adapter_release(file: Path, out: Path) -> None:
    """``topolora release``, and the bundle's configuration read as MONAI reads it."""
    import json
    import os
    import shutil

    from monai.bundle import ConfigParser

    from topolora_monai.adapters import read_spec

    run = out / "run"
    (run / "evaluation").mkdir(parents=True)
    shutil.copy(file, run / "adapter.safetensors")
    summary = {
        "dataset": "folder", "seed": 3, "trainable": 1000, "epochs": 30, "seconds": 1234.5, "hardware": "a processor",
        "peak_memory_bytes": 2_500_000_000, "commit": "abc123", "command": "python -m monai.bundle run training",
        "evaluated_on": {"dataset": "folder"}, "test": {"dice": 0.5, "iou": 0.4, "threshold": 0.4},
    }  # fmt: skip
    (run / "evaluation/summary.json").write_text(json.dumps(summary))
    try:
        _command("release", "--run", run, "--out", out / "bundle")
    except RefusedError as error:
        raise RefusedError(str(error).replace(str(run / "adapter.safetensors"), str(file))) from error
    before = Path.cwd()
    os.chdir(out / "bundle")
    try:
        parser = ConfigParser()
        parser.read_config("configs/inference.yaml")
        parser["bundle_root"] = str(out / "bundle")
        parser.parse()
        told = {name: parser.get_parsed_content(name) for name in ("classes", "threshold", "model_spec", "loading")}
    except Exception as error:
        raise _own_error(error) from error
    finally:
        os.chdir(before)
    labels = read_spec(file).to_header().get("labels")
    if labels is not None and list(told["classes"]) != labels:
        raise AssertionError(f"classes of the bundle are {told['classes']!r}, of the adapter {labels!r}")


def _own_error(error: Exception) -> Exception:
    """The package's error that MONAI's own was raised from, as its command line prints it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TopoLoRAError):
        cause = cause.__cause__
    return cause if isinstance(cause, TopoLoRAError) else error


# ---- archives and checkpoints


def unpack(file: Path, out: Path) -> None:
    """What a data set does with an archive that lies in its folder."""
    from topolora_monai.data.download import Archive, unpack_archives

    root = file.parent
    try:
        unpack_archives([Archive(name=file.name, creates=CREATES)], root, checksum=False)
    finally:
        odd = [path for path in root.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]
        odd += [path for path in root.iterdir() if path.name.startswith((".unpack", ".part"))]
        odd += [path for path in root.parent.iterdir() if path not in (root, out)]
        odd += list(Path("/tmp").glob("hostile-of-a-*"))
        if odd:
            raise LeftBehindError(f"left behind: {', '.join(str(path) for path in odd[:3])}")
    if not (root / CREATES / "image.txt").is_file():
        raise AssertionError("said nothing, and its files are not there")


def read_base(file: Path, out: Path) -> None:
    """``--weights FILE``."""
    from topolora_monai.networks import build_network

    build_network("vit_tiny_test", image_size=64, weights=str(file))


def read_merged_model(file: Path, out: Path) -> None:
    """A released bundle's ``model.pt``."""
    from topolora_monai.model.network import load_model

    load_model(torch.nn.Linear(2, 2), file)


def resume_run(file: Path, out: Path) -> None:
    """A run's ``last.pt``, as a training that is started again reads it."""
    import shutil

    from topolora_monai.engines.checkpoint import RunCheckpoint

    shutil.copyfile(file, out / "last.pt") if file.stat().st_size < 1 << 30 else (out / "last.pt").symlink_to(file)
    checkpoint = RunCheckpoint.__new__(RunCheckpoint)  # what the state is held against comes after reading it
    checkpoint.folder, checkpoint.last = out, out / "last.pt"
    try:
        checkpoint._read_last()
    except TopoLoRAError as error:
        raise ConfigError(str(error).replace(str(out / "last.pt"), str(file))) from error
