"""Folders as training and evaluation leave them, with errors at known places."""

import csv
import json

import numpy as np
import torch

from topolora_monai.metrics import ThresholdCurve
from topolora_monai.reports import curves_record, write_layers

SIZE = 32
FURTHER = ("betti_1_error", "betti_0_patch_error", "betti_matching_error", "boundary_f1", "hd95", "assd", "s_measure",
           "weighted_f", "mae", "ber", "ece", "brier", "precision", "recall")  # fmt: skip


def masks():
    """A line with one gap of six pixels and a false spot: one broken connection, one false part."""
    truth = np.zeros((1, SIZE, SIZE), bool)
    truth[0, 9:12, 2:30] = True
    prediction = truth.copy()
    prediction[0, :, 13:19] = False
    prediction[0, 24:27, 20:24] = True
    return truth, prediction


def write_fake_run(folder, names, seed=0, pictures=True, shift=0.0, tensorboard=False, further=False):
    """Write a run; returns its rows, as the table of images has them.

    Runs evaluated before there were further scores lack them, and the temperature and risk-coverage curve as well.
    """
    random = np.random.default_rng(seed)
    evaluation = folder / "evaluation"
    evaluation.mkdir(parents=True)
    rows = [
        {"name": name, "dice": f"{random.uniform(0.6, 0.9) + shift:.6f}", "cldice": f"{random.uniform(0.5, 0.8):.6f}",
         "threshold": "0.400000", "betti_0_error": f"{random.integers(2, 40)}"}
        for name in names
    ]  # fmt: skip
    if further:
        for row in rows:
            row |= {score: f"{random.uniform(0, 1):.6f}" for score in FURTHER}
    with (evaluation / "per_image.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    record = {"dataset": "drive", "network_name": "vit_t", "seed": seed, "seconds": 3725.0, "trainable": 4115328,
              "commit": "abc123", "hardware": "a processor", "adaptation": {"lora": {"rank": 16}}}  # fmt: skip
    split = {"training": {"a": {"image": 64 * "0"}}}
    (folder / "training.json").write_text(json.dumps(record | {"split": split}))
    if further:
        record |= {"temperature": 1.25, "threshold_by": "cldice"}
    (evaluation / "summary.json").write_text(
        json.dumps(record | {"test": {"dice": 0.8123, "threshold": 0.4}, "validation": {"dice": 0.8}})
    )
    curve = ThresholdCurve()
    probability = torch.tensor(random.random(4000), dtype=torch.float32)
    curve.add(probability, (torch.tensor(random.random(4000)) < probability).float())
    curves = curves_record({"foreground": curve}, 0.4)
    if further:
        risk = {"coverage": [0.25, 0.5, 0.75, 1.0], "risk": [None, 0.01, 0.02, 0.08], "area": 0.0321}
        curves["classes"]["foreground"]["risk_coverage"] = risk
    (evaluation / "curves.json").write_text(json.dumps(curves))
    if pictures:
        _write_pictures(evaluation / "images", names)
    if tensorboard:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(folder / "tensorboard") as writer:
            for step in range(1, 5):
                writer.add_scalar("train_loss", 2.0 / step, step)
            writer.add_scalar("test/dice", 0.8123, 0)
    return rows


def _write_pictures(folder, names):
    """Those of the first image; all others are links to them, which takes no time for a thousand."""
    truth, prediction = masks()
    image = np.full((3, SIZE, SIZE), 0.5, np.float32)
    fov = np.ones((SIZE, SIZE), bool)
    fov[:, :1] = False
    write_layers(folder / names[0], image, truth, prediction, prediction * np.float32(0.8), fov)
    for name in names[1:]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(folder / names[0])
