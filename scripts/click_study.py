"""Dice after clicks of a simulated annotator, of an adapted network and of its base without the adapter.

    python scripts/click_study.py --adapter runs/drive/adapter.safetensors --weights mobile_sam.pt \
        --dataset chase_db1 --dataset_dir CHASE_DB1 --images 10 --json results/clicks_chase_db1.json

The annotator clicks at the centre of the largest error, positively if it was missed. Both networks get the same images,
tiles and clicks rule; the base is judged at the threshold 0.5, and with one class.
"""

import argparse
import time
from pathlib import Path

COUNTS = (0, 1, 3, 5, 10)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--weights", help="base checkpoint that the adapter was trained on")
    parser.add_argument("--dataset", required=True, help="name of the data set; its test images are used")
    parser.add_argument("--dataset_dir", type=Path, required=True)
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--images", type=int, default=10, help="how many, spread evenly over the test images")
    images.add_argument("--names", nargs="+", help="these test images instead")
    parser.add_argument("--overlap", type=float, default=0.5, help="of the tiles")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="by default what the device is fast in")
    parser.add_argument("--allow_partial", action="store_true", help="accept a part of the data set")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


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


def study(segmenter, name, item, truth, valid, seconds):
    """The course of one image."""
    from topolora_monai.annotation import annotate

    def answer(prompts, previous):
        start = time.perf_counter()
        mask = segmenter.masks(segmenter.interactive(item["image"], prompts, previous, name), name)[0]
        seconds["click" if prompts.clicks else "first"].append(time.perf_counter() - start)
        return mask

    return annotate(answer, truth, max(COUNTS), valid)


def main() -> None:
    arguments = parse_arguments()
    from statistics import median

    from topolora_monai.annotation import AnnotationSegmenter, mean_course
    from topolora_monai.engines import provenance, write_json
    from topolora_monai.transforms import LoadItem

    segmenter = AnnotationSegmenter(
        {"adapted": arguments.adapter},
        weights=arguments.weights,
        overlap=arguments.overlap,
        precision=arguments.precision,
    )
    items, label_values = chosen_items(arguments)
    spec = segmenter.spec("adapted")
    load = LoadItem(spec.in_channels, label_values=label_values)
    courses, seconds = {"adapted": [], "base": []}, {name: {"first": [], "click": []} for name in ("adapted", "base")}
    for item in items:
        loaded = load(item)
        truth, valid = loaded["label"][0].numpy() > 0, loaded["fov"][0].numpy() > 0
        for name, done in courses.items():
            done.append(study(segmenter, name, item, truth, valid, seconds[name]))
            dice = done[-1].dice
            print(item["name"], name, *(f"{dice[count]:.4f}" for count in COUNTS), flush=True)
    result = {
        "dataset": arguments.dataset,
        "images": [item["name"] for item in items],
        "adapter": {key: getattr(spec, key) for key in ("dataset", "network_name", "threshold")},
        "overlap": arguments.overlap,
        "precision": segmenter.precision,
        "clicks": list(COUNTS),
        "dice": {name: mean_course(course, COUNTS) for name, course in courses.items()},
        "dice_per_image": {name: [one.dice for one in course] for name, course in courses.items()},
        "seconds": {name: {kind: median(times) for kind, times in of.items()} for name, of in seconds.items()},
        **provenance(),
    }
    for name, course in result["dice"].items():
        print(name, *(f"{count} clicks: {value:.4f}" for count, value in course.items()), sep="  ")
    if arguments.json:
        write_json(result, arguments.json)


if __name__ == "__main__":
    main()
