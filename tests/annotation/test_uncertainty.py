"""Uncertainty with answers known by hand."""

import numpy as np
import pytest
import torch

from topolora_monai.annotation import (
    AnnotationSegmenter,
    mean_entropy,
    random_score,
    topological_uncertainty,
    uncertainty_score,
)
from topolora_monai.errors import ConfigError


def vessel(*gaps):
    probability = np.zeros((41, 120))
    probability[19:22, 10:110] = 0.9
    for start in gaps:
        probability[:, start : start + 4] *= 0.4  # 0.36: below the threshold, above half of it
    return probability


def test_broken_vessel_is_more_uncertain_than_a_whole_one():
    assert topological_uncertainty([vessel()]).score == 0
    assert topological_uncertainty([vessel(40)]) == (1, 0.0)
    assert topological_uncertainty([vessel(30, 60, 90)]).breaks == 3


def test_betti_change_is_the_mean_over_pairs():
    ring = np.zeros((41, 120))
    ring[10:30, 10:30] = 0.9
    ring[14:26, 14:26] = 0
    answers = [ring, np.zeros((41, 120)), ring]  # (1, 1) and (0, 0): differences 2, 0, 2
    assert topological_uncertainty(answers).betti_change == pytest.approx(4 / 3)


def test_threshold_is_taken():
    assert topological_uncertainty([vessel(40)], threshold=0.3).breaks == 0
    with pytest.raises(ConfigError):
        topological_uncertainty([])


def test_mean_entropy_counts_valid_pixels():
    entropy = torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]]])
    assert mean_entropy(entropy) == 0.375
    assert mean_entropy(entropy, [[True, True], [False, False]]) == 0.75
    assert mean_entropy(entropy, np.zeros((2, 2), bool)) == 0


def test_random_order_is_the_seeds():
    names = [f"{number}.png" for number in range(50)]
    scores = [random_score(name) for name in names]
    assert scores == [random_score(name) for name in names]
    assert np.argsort(scores).tolist() != np.argsort([random_score(name, 1) for name in names]).tolist()
    assert 0.3 < np.mean(scores) < 0.7


@pytest.mark.parametrize("kind", ["entropy", "dropout", "topology"])
def test_score_of_an_image_repeats(adapter, samples, kind):
    segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32", overlap=0.0)
    image = samples[5][0]
    first = uncertainty_score(segmenter, image, kind, passes=2)
    torch.rand(3)  # somebody else draws
    assert uncertainty_score(segmenter, image, kind, passes=2) == pytest.approx(first, abs=1e-6)
    if kind == "dropout":
        assert uncertainty_score(segmenter, image, kind, passes=2, seed=1) != first


def test_topology_counts_the_answers_of_all_mirror_images(adapter, samples):
    segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32", overlap=0.0)
    answers = segmenter.mirrored(samples[5][0])
    assert len(answers) == 4
    for answer in answers[1:]:  # mirrored back, so that they resemble the first, and not the same
        assert 1e-4 < np.abs(answer - answers[0]).mean() < 0.15
        assert np.corrcoef(answer.ravel(), answers[0].ravel())[0, 1] > 0.5
    expected = topological_uncertainty([answer[0] for answer in answers], 0.5).score
    assert uncertainty_score(segmenter, samples[5][0], "topology") == expected


def test_unknown_kind_is_refused(adapter, samples):
    segmenter = AnnotationSegmenter({"vessels": adapter}, precision="fp32")
    with pytest.raises(ConfigError, match="topology"):
        uncertainty_score(segmenter, samples[0][0], "topologie")
