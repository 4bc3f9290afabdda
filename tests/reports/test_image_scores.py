"""Scores of single images by name, against the functions they are named after."""

import numpy as np
import pytest
import torch

from topolora_monai.errors import ConfigError
from topolora_monai.metrics import betti_error, boundary_f1, cldice, hd95, mean_absolute_error, weighted_f_measure
from topolora_monai.reports import IMAGE_SCORES, ImageScores
from topolora_monai.reports.class_scores import ClassScores


@pytest.fixture
def case():
    """Two classes: probabilities, masks, truth and where they count; the second class is absent."""
    rng = np.random.default_rng(5)
    truth = np.zeros((2, 90, 100), bool)
    truth[0, 20:24, 5:95] = truth[0, 10:80, 50:53] = True
    probability = np.clip(truth + rng.normal(0, 0.35, truth.shape), 0, 1).astype(np.float32)
    inside = np.zeros((90, 100), bool)
    inside[5:85, 8:92] = True
    return probability, probability >= 0.5, truth, inside


def test_each_name_is_what_it_says(case):
    probability, predicted, truth, inside = case
    scores = ImageScores(list(IMAGE_SCORES), spacing=0.5, tolerance=1.0).of(
        torch.from_numpy(probability),
        predicted,
        torch.from_numpy(truth).float(),
        torch.from_numpy(inside)[None].float(),
    )
    for number, of_class in enumerate(scores):
        p, answer, true = probability[number].astype(float), predicted[number], truth[number]
        assert list(of_class) == list(IMAGE_SCORES)
        expected = {
            "cldice": cldice(answer, true, inside),
            "betti_0_error": betti_error(answer, true, 0, inside),
            "betti_1_patch_error": betti_error(answer, true, 1, inside, 64),
            "boundary_f1": boundary_f1(answer, true, 1.0, inside, spacing=0.5),
            "hd95": hd95(answer, true, inside, spacing=0.5),
            "weighted_f": weighted_f_measure(p, true, inside),
            "mae": mean_absolute_error(p, true, inside),
        }
        for name, value in expected.items():
            assert of_class[name] == pytest.approx(value, nan_ok=True), name


def test_mean_over_images_leaves_out_what_is_not_defined(case):
    probability, predicted, truth, _ = case
    scores = ClassScores(["background", "vessel", "lesion"])
    images = ImageScores(["cldice", "mae"])
    values = []
    for turn in (1, -1):
        p, true = torch.from_numpy(probability[:, ::turn].copy()), torch.from_numpy(truth[:, ::turn].copy()).float()
        scores.add(p, true)
        values.append(images.of(p, predicted[:, ::turn] & (turn > 0), true, None))
        scores.add_image_scores(values[-1])
    summary = scores.summary()["classes"]
    assert values[1][0]["cldice"] == 0  # nothing found
    assert np.isnan(values[1][1]["cldice"])  # nothing to find
    assert summary["vessel"]["cldice"] == pytest.approx(values[0][0]["cldice"] / 2)
    assert summary["lesion"]["cldice"] == values[0][1]["cldice"]
    assert summary["lesion"]["mae"] == pytest.approx((values[0][1]["mae"] + values[1][1]["mae"]) / 2)


def test_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean hd95"):
        ImageScores(["hd_95"])
