"""What a simulated annotator gets for up to ten clicks, in scores and in time, from several networks and tools.

    python scripts/click_study.py --prompted runs/with/adapter.safetensors --plain runs/without/adapter.safetensors \
        --weights mobile_sam.pt --dataset chase_db1 --dataset_dir CHASE_DB1 --images 10 \
        --json results/clicks_chase_db1.json

Of each image and method the file has Dice, clDice and Betti-0 error after 0 to 10 clicks, and the seconds of each. It
is written after each image, and what it has already is not done again.

Methods: `prompted` (trained with prompts and asked), `prompted_rule` (the same, but clicks go by the rule for networks
without), `plain_rule` and `plain_asked` (an adapter trained without prompts), `sam` (the base as its authors use it:
the whole image, from an empty mask), `wires` (two clicks trace the longest missed stretch of the centreline) and
`bridges` (one click joins the longest break), both with the first adapter given. Clicks are at the centre of the
largest error, positive if it was missed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

CLICKS = 10
SCORES = ("dice", "cldice", "betti_0_error")
METHODS = ("prompted", "prompted_rule", "plain_rule", "plain_asked", "sam", "wires", "bridges")
WANTED = (0.90, 0.95)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompted", type=Path, help="adapter that was trained with prompts")
    parser.add_argument("--plain", type=Path, help="adapter that was trained without")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="by default all that the adapters allow")
    parser.add_argument("--weights", help="base checkpoint that the adapters were trained on")
    parser.add_argument("--dataset", required=True, help="name of the data set; its test images are used")
    parser.add_argument("--dataset_dir", type=Path, required=True)
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--images", type=int, default=10, help="how many, spread evenly over the test images")
    images.add_argument("--names", nargs="+", help="these test images instead")
    parser.add_argument("--overlap", type=float, default=0.25, help="of the tiles")
    parser.add_argument("--sam_size", type=int, default=1024, help="side in pixels at which the base sees an image")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="by default what the device is fast in")
    parser.add_argument("--allow_partial", action="store_true", help="accept a part of the data set")
    parser.add_argument("--json", type=Path, required=True, help="file with the figures")
    arguments = parser.parse_args()
    arguments.methods = arguments.methods or [name for name in METHODS if adapter_of(name, arguments)]
    missing = [name for name in arguments.methods if not adapter_of(name, arguments)]
    if missing or not arguments.methods:
        parser.error(f"{', '.join(missing) or 'every method'} needs --prompted or --plain")
    return arguments


def adapter_of(method, arguments):
    kind = method.split("_")[0]
    return getattr(arguments, kind) if kind in ("prompted", "plain") else arguments.prompted or arguments.plain


def chosen_items(arguments):
    import numpy as np

    from topolora_monai.data import open_dataset

    data = open_dataset(arguments.dataset, arguments.dataset_dir, allow_partial=arguments.allow_partial or None)
    items = data.items("test")
    if arguments.names:
        by_name = {item["name"]: item for item in items}
        unknown = [name for name in arguments.names if name not in by_name]
        if unknown:
            raise SystemExit(f"no test image is called {', '.join(unknown)}; there are {', '.join(by_name)}")
        return [by_name[name] for name in arguments.names], data.label_values
    count = min(arguments.images, len(items))
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)], data.label_values


def with_prompts(adapter, prompts, folder):
    """A copy of an adapter file that says whether it was trained with prompts."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(adapter, framework="pt") as file:
        header = json.loads(file.metadata()["topolora_monai"])
    path = Path(folder) / f"{len(list(Path(folder).iterdir()))}.safetensors"
    save_file(load_file(adapter), path, metadata={"topolora_monai": json.dumps(header | {"prompts": prompts})})
    return path


class Adapted:
    """Answers by an adapter; lines of an annotator instead of clicks, if there is what draws the next."""

    def __init__(self, arguments, adapter, prompts, folder, draw=None):
        from topolora_monai.annotation import AnnotationSegmenter

        self.segmenter = AnnotationSegmenter(
            {"adapter": with_prompts(adapter, prompts, folder)},
            weights=arguments.weights,
            overlap=arguments.overlap,
            precision=arguments.precision,
        )
        self.draw = draw

    def start(self, item):
        """The mask of an image without any click."""
        self.item, self.clicks = item["image"], []
        return self._masks(self.segmenter.automatic(self.item))

    def answer(self, mask, truth, valid):
        """The mask after what the annotator does next, and how many clicks that was; 0 if there is nothing to do."""
        from topolora_monai.annotation import Prompts, next_click
        from topolora_monai.errors import ConfigError

        if self.draw is None:
            click = next_click(mask, truth, valid)
            if click is None:
                return mask, 0
            self.clicks.append(click)
            prompts, count = Prompts(tuple(self.clicks)), 1
        else:
            prompts, count = self.draw(mask, truth, valid)
            if prompts is None:
                return mask, 0
        try:
            return self._masks(self.segmenter.interactive(self.item, prompts, mask)), count
        except ConfigError:  # a break whose ends are too far apart
            return mask, count

    def _masks(self, probability):
        return self.segmenter.masks(probability)[0]


class Sam:
    """The base as its authors use it: the image as a whole, and each answer told the one before."""

    def __init__(self, arguments, adapter):
        from topolora_monai.adapters import read_spec
        from topolora_monai.networks import build_network

        self.spec = read_spec(adapter)
        settings = self.spec.network_settings | {"image_size": arguments.sam_size, "out_channels": 1, "fit": "pad"}
        self.network = build_network(**settings, weights=arguments.weights).eval()

    def start(self, item):
        """As of :class:`Adapted`."""
        import numpy as np
        import torch

        image = self.spec.loading_transforms()(item)["image"][None]
        with torch.inference_mode():
            self.features = self.network.features(image)
        self.size, self.clicks, self.logits = tuple(image.shape[-2:]), [], None
        return np.zeros(self.size, bool)

    def answer(self, mask, truth, valid):
        """As of :class:`Adapted`."""
        import torch

        from topolora_monai.annotation import next_click

        click = next_click(mask, truth, valid)
        if click is None:
            return mask, 0
        self.clicks.append(click)
        told = {
            "points": torch.tensor([[(one.x, one.y) for one in self.clicks]]),
            "point_labels": torch.tensor([[float(one.positive) for one in self.clicks]]),
            "mask_prompt": self.logits,
        }
        with torch.inference_mode():
            self.logits = self.network.decode(self.features, self.size, **told)
        return (self.logits[0, 0] > 0).numpy(), 1


def next_wires(mask, truth, valid):
    from topolora_monai.annotation import Prompts, next_wire

    wire = next_wire(mask, truth, valid)
    return (None, 0) if wire is None else (Prompts(wires=(wire,)), 2)


def next_bridge(mask, truth, valid):
    from topolora_monai.annotation import Prompts
    from topolora_monai.metrics import skeleton_breaks

    breaks = skeleton_breaks(mask, truth, valid)
    if not breaks:
        return None, 0
    longest = max(breaks, key=lambda gap: gap.length)
    return Prompts(bridges=((longest.col, longest.row),)), 1


def made(method, arguments, folder):
    adapter = adapter_of(method, arguments)
    if method == "sam":
        return Sam(arguments, adapter)
    draw = {"wires": next_wires, "bridges": next_bridge}.get(method)
    return Adapted(arguments, adapter, method in ("prompted", "plain_asked"), folder, draw)


def course(model, item, truth, valid):
    """Scores after 0, 1, ... clicks, and the seconds that each answer took."""
    from topolora_monai.metrics import betti_error, cldice

    def scored(mask):
        both, all_of_them = (mask & truth & valid).sum(), (mask & valid).sum() + (truth & valid).sum()
        dice = 2 * both / all_of_them if all_of_them else 1.0
        values = (dice, cldice(mask, truth, valid), betti_error(mask, truth, 0, valid))
        return dict(zip(SCORES, map(float, values), strict=True))

    begun = time.perf_counter()
    mask = model.start(item)
    first = time.perf_counter() - begun
    scores, seconds = [scored(mask)], []
    while len(scores) <= CLICKS:
        begun = time.perf_counter()
        mask, count = model.answer(mask, truth, valid)
        took = time.perf_counter() - begun
        seconds += [took] if count else []
        scores += [scores[-1]] * (count - 1) + [scored(mask)]
        if not count:
            scores += [scores[-1]] * (CLICKS + 1 - len(scores))
    return {"first": first, "seconds": seconds} | {name: [one[name] for one in scores] for name in SCORES}


def summary(courses):
    """Means over images by number of clicks, clicks to a Dice, and times."""
    import numpy as np

    means = {name: np.nanmean([one[name] for one in courses], axis=0).tolist() for name in SCORES}
    dice = np.array([one["dice"] for one in courses])
    to = {
        str(wanted): {
            "clicks": float(np.where((dice >= wanted).any(axis=1), (dice >= wanted).argmax(axis=1), CLICKS).mean()),
            "reached": float((dice >= wanted).any(axis=1).mean()),
        }
        for wanted in WANTED
    }
    seconds = [second for one in courses for second in one["seconds"]]
    p50, p95 = np.percentile(seconds, [50, 95]).tolist() if seconds else (None, None)
    first = float(np.median([one["first"] for one in courses]))
    return means | {"clicks_to_dice": to, "seconds_first": first, "seconds_p50": p50, "seconds_p95": p95}


def main() -> None:
    arguments = parse_arguments()
    from topolora_monai.data import file_sha256
    from topolora_monai.engines import provenance, read_json, write_json
    from topolora_monai.transforms import LoadItem

    items, label_values = chosen_items(arguments)
    adapters = {name: getattr(arguments, name) for name in ("prompted", "plain") if getattr(arguments, name)}
    settings = {
        "dataset": arguments.dataset,
        "adapters": {name: file_sha256(path) for name, path in adapters.items()},
        "overlap": arguments.overlap,
        "sam_size": arguments.sam_size,
    }
    done = {}
    if arguments.json.is_file():
        before = read_json(arguments.json, "choose another --json")
        if before["settings"] != settings:
            raise SystemExit(f"{arguments.json} is of other settings: {before['settings']}, not {settings}")
        done = before["images"]
    for method in arguments.methods:
        courses = done.setdefault(method, {})
        left = [item for item in items if item["name"] not in courses]
        with tempfile.TemporaryDirectory() as folder:
            model = made(method, arguments, folder) if left else None
            for item in left:
                loaded = LoadItem(3, label_values=label_values)(item)
                truth, valid = loaded["label"][0].numpy() > 0, loaded["fov"][0].numpy() > 0
                courses[item["name"]] = found = course(model, item, truth & valid, valid)
                print(method, item["name"], *(f"{found['dice'][count]:.4f}" for count in (0, 1, 3, 5, 10)), flush=True)
                means = {name: summary(list(of.values())) for name, of in done.items() if of}
                write_json({"settings": settings, "summary": means, "images": done, **provenance()}, arguments.json)
    for method, courses in done.items():
        means = summary(list(courses.values()))
        print(method, *(f"{name} {means[name][0]:.4f} -> {means[name][-1]:.4f}" for name in SCORES), sep="  ")


if __name__ == "__main__":
    main()
