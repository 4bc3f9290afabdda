"""Boundary scores against distances between all pairs of pixels, and MONAI's where it agrees."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from monai.metrics import HausdorffDistanceMetric, compute_average_surface_distance, compute_hausdorff_distance

from tests.metrics.mask_pairs import adversarial_pairs, all_pairs, random_pairs
from topolora_monai.metrics import ImageMetric, assd, boundary_f1, hd95

ANISOTROPIC = (0.4, 1.5)


def outline(mask):
    """Foreground pixels with an edge neighbour that is background or not there."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)[(slice(1, -1),) * mask.ndim]
    return np.argwhere(mask & ~inner)


def all_distances(prediction, target, spacing):
    """Shortest distance of every outline pixel to the other outline, both ways."""
    one, other = outline(prediction) * spacing, outline(target) * spacing
    between = np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=2))
    return between.min(axis=1), between.min(axis=0)


def interpolated_percentile(values, share):
    ordered = sorted(values.tolist())
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def expected_scores(prediction, target, tolerance, spacing):
    """Boundary F1, HD95 and ASSD."""
    spacing = np.broadcast_to(spacing, prediction.ndim)
    if not prediction.any() and not target.any():
        return math.nan, math.nan, math.nan
    if not prediction.any() or not target.any():
        diagonal = math.sqrt(sum(((n - 1) * s) ** 2 for n, s in zip(prediction.shape, spacing, strict=True)))
        return 0.0, diagonal, diagonal
    to_target, to_prediction = all_distances(prediction, target, spacing)
    precision, recall = ((one <= tolerance).sum() / len(one) for one in (to_target, to_prediction))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    far = max(interpolated_percentile(to_target, 0.95), interpolated_percentile(to_prediction, 0.95))
    return f1, far, (to_target.sum() + to_prediction.sum()) / (len(to_target) + len(to_prediction))


class TestAgreesWithAllPairsOfPixels:
    @pytest.mark.parametrize("spacing", [1, 0.37, ANISOTROPIC], ids=str)
    @pytest.mark.parametrize("tolerance", [0, 1, 1.5])
    def test_on_random_and_adversarial_masks(self, tolerance, spacing):
        for prediction, target in [*all_pairs(), *random_pairs((20, 31), 10, seed=2)]:
            found = (
                boundary_f1(prediction, target, tolerance, spacing=spacing),
                hd95(prediction, target, spacing=spacing),
                assd(prediction, target, spacing=spacing),
            )
            assert found == pytest.approx(
                expected_scores(prediction, target, tolerance, spacing), abs=1e-9, nan_ok=True
            )

    def test_in_3d(self):
        for prediction, target in random_pairs((6, 7, 5), 10, seed=4):
            spacing = (2, 0.5, 0.5)
            expected = expected_scores(prediction, target, 1, spacing)
            assert boundary_f1(prediction, target, 1, spacing=spacing) == pytest.approx(expected[0], abs=1e-9)
            assert hd95(prediction, target, spacing=spacing) == pytest.approx(expected[1], abs=1e-9)
            assert assd(prediction, target, spacing=spacing) == pytest.approx(expected[2], abs=1e-9)

    def test_outside_the_mask_is_background(self):
        rng = np.random.default_rng(0)
        for prediction, target in random_pairs((12, 14), 10):
            mask = rng.random((12, 14)) > 0.3
            expected = expected_scores(prediction & mask, target & mask, 1, 1)
            assert boundary_f1(prediction, target, 1, mask) == pytest.approx(expected[0], abs=1e-9)
            assert hd95(prediction, target, mask) == pytest.approx(expected[1], abs=1e-9)
            assert assd(prediction, target, mask) == pytest.approx(expected[2], abs=1e-9)


class TestAgainstMonai:
    @pytest.mark.parametrize("spacing", [1, ANISOTROPIC], ids=str)
    def test_agree_where_neither_mask_is_empty(self, spacing):
        pairs = [pair for pair in all_pairs() if all(mask.any() for mask in pair)]
        assert len(pairs) > 60
        for pair in pairs:
            prediction, target = (torch.tensor(mask.copy())[None, None].float() for mask in pair)
            options = {"include_background": True, "spacing": spacing}
            far = compute_hausdorff_distance(prediction, target, percentile=95, **options).item()
            mean = compute_average_surface_distance(prediction, target, symmetric=True, **options).item()
            assert hd95(*pair, spacing=spacing) == pytest.approx(far, abs=1e-5)  # it interpolates in float32
            assert assd(*pair, spacing=spacing) == pytest.approx(mean, rel=1e-6)

    @pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class")
    def test_disagree_where_one_is(self):
        prediction, target = torch.zeros(1, 1, 9, 13), torch.ones(1, 1, 9, 13)
        options = {"include_background": True}
        for pair in ((prediction, target), (target, prediction)):
            assert math.isnan(compute_hausdorff_distance(*pair, percentile=95, **options))
            assert math.isinf(compute_average_surface_distance(*pair, symmetric=True, **options))
        nothing = HausdorffDistanceMetric(percentile=95, **options)
        nothing(prediction, target)
        assert nothing.aggregate() == 0
        assert hd95(prediction[0, 0], target[0, 0]) == assd(target[0, 0], prediction[0, 0]) == math.hypot(8, 12)


class TestBoundaryF1:
    def test_tolerance_is_inclusive(self):
        line = np.zeros((9, 9), bool)
        line[2] = True
        moved = np.roll(line, 3, axis=0)
        assert boundary_f1(line, moved, 3) == 1
        assert boundary_f1(line, moved, 2.99) == 0
        assert boundary_f1(line, moved, 3, spacing=1.01) == 0

    def test_grows_with_the_tolerance(self):
        for prediction, target in random_pairs((20, 20), 10):
            scores = [boundary_f1(prediction, target, tolerance) for tolerance in (0, 1, 2, 4, 30)]
            assert scores == sorted(scores)
            assert scores[-1] == 1

    def test_refuses_what_is_out_of_range(self):
        mask = np.ones((4, 4))
        for tolerance in (-1, math.nan):
            with pytest.raises(ValueError, match="tolerance"):
                boundary_f1(mask, mask, tolerance)
        with pytest.raises(ValueError, match="differ in shape"):
            boundary_f1(mask, mask[1:])
        for function in (boundary_f1, hd95, assd):
            for spacing in (0, -1, math.inf, math.nan, (1, 1, 1)):
                with pytest.raises(ValueError, match="spacing"):
                    function(mask, mask, spacing=spacing)


METRICS = {"boundary F1": partial(boundary_f1, tolerance=1), "HD95": hd95, "ASSD": assd}


@pytest.mark.parametrize("name", METRICS)
class TestAsMetric:
    def images(self):
        masks = torch.tensor(np.array(random_pairs((30, 33), 4))).float()
        return masks[:, 0].reshape(2, 2, 30, 33), masks[:, 1].reshape(2, 2, 30, 33)

    def test_scores_each_image_and_class(self, name):
        function = METRICS[name]
        y_pred, y = self.images()
        mask = torch.ones(2, 1, 30, 33)
        mask[0, 0, :20] = 0
        metric = ImageMetric(function)
        metric(y_pred=y_pred, y=y)
        metric(y_pred=y_pred, y=y, mask=mask, spacing=ANISOTROPIC)
        options = [{}] * 2 + [{"mask": mask[b, 0].numpy(), "spacing": ANISOTROPIC} for b in range(2)]
        expected = [
            [function(y_pred[i % 2, k].numpy(), y[i % 2, k].numpy(), **options[i]) for k in range(2)] for i in range(4)
        ]
        np.testing.assert_allclose(metric.get_buffer().numpy(), expected, rtol=0, atol=1e-9)
        assert metric.aggregate().item() == pytest.approx(np.mean(expected), rel=1e-6)

    def test_spacing_of_the_metric_itself(self, name):
        function = METRICS[name]
        y_pred, y = self.images()
        metric = ImageMetric(function, spacing=ANISOTROPIC)
        found = metric(y_pred[:1, :1], y[:1, :1]).item()
        assert found == function(y_pred[0, 0].numpy(), y[0, 0].numpy(), spacing=ANISOTROPIC)

    def test_through_the_ignite_handler(self, name):
        function = METRICS[name]
        y_pred, y = self.images()
        engine = Engine(lambda _, at: (y_pred[at : at + 1], y[at : at + 1]))
        IgniteMetricHandler(ImageMetric(function)).attach(engine, "score")
        engine.run([0, 1])
        expected = [[function(y_pred[b, k].numpy(), y[b, k].numpy()) for k in range(2)] for b in range(2)]
        assert engine.state.metrics["score"] == pytest.approx(np.mean(expected), rel=1e-6)

    def test_empty_masks(self, name):
        metric = ImageMetric(METRICS[name])
        empty, full = torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5)
        metric(empty, empty)
        metric(empty, full)
        assert metric.aggregate("none")[0].isnan()
        assert metric.aggregate().item() == pytest.approx(0 if name == "boundary F1" else 5)


def test_adversarial_masks_are_many():
    assert len(adversarial_pairs()) >= 10
    assert len(all_pairs()) >= 60
