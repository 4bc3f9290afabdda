"""Region measures against py-sod-metrics' answers, under masks, and as MONAI metrics."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.metrics.saliency_maps import adversarial_maps, all_maps, random_maps, reference_scores
from topolora_monai.metrics import ProbabilityMetric, saliency

REFERENCE = json.loads(Path(__file__).with_name("saliency_reference.json").read_text())
MEASURES = {
    "s_measure": saliency.s_measure,
    "e_measure": saliency.e_measure,
    "weighted_f_measure": saliency.weighted_f_measure,
    "mean_absolute_error": saliency.mean_absolute_error,
    "balanced_error_rate": saliency.balanced_error_rate,
}
UNDEFINED_THERE = {("s_measure", "a ramp on the last corner"), ("s_measure", "a line one pixel high")}
NOT_DEFINED = {"weighted_f_measure": lambda t: not t.any(), "balanced_error_rate": lambda t: t.all() or not t.any()}


@pytest.mark.parametrize("measure", MEASURES)
class TestAgreement:
    def test_stored_answers(self, measure):
        maps = all_maps()
        assert len(maps) == len(REFERENCE) == 60
        for name, (p, target) in maps.items():
            found = MEASURES[measure](p, target)
            if measure in NOT_DEFINED and NOT_DEFINED[measure](target):
                assert math.isnan(found), name
            elif math.isnan(REFERENCE[name][measure]):  # it has regions without pixels there
                assert (measure, name) in UNDEFINED_THERE
                assert 0 <= found <= 1
            else:
                assert found == pytest.approx(REFERENCE[name][measure], abs=1e-6), name

    def test_installed_package(self, measure):
        sod = pytest.importorskip("py_sod_metrics")
        for p, target in random_maps(5):
            assert MEASURES[measure](p, target) == pytest.approx(reference_scores(sod, p, target)[measure], abs=1e-6)

    def test_rectangular_mask_is_a_crop(self, measure):
        inside = np.zeros((24, 31), bool)
        inside[3:20, 5:27] = True
        for p, target in random_maps(6):
            expected = MEASURES[measure](p[3:20, 5:27], target[3:20, 5:27])
            assert MEASURES[measure](p, target, inside) == pytest.approx(expected, abs=1e-12)

    def test_outside_the_mask_nothing_counts(self, measure):
        random = np.random.default_rng(0)
        (p, target), inside = random_maps(1)[0], random.random((24, 31)) > 0.3
        other = np.where(inside, p, 1 - p), np.where(inside, target, ~target)
        assert MEASURES[measure](*other, inside) == MEASURES[measure](p, target, inside)
        assert MEASURES[measure](p, target, inside) != MEASURES[measure](p, target)
        assert math.isnan(MEASURES[measure](p, target, np.zeros_like(inside)))

    def test_bad_input(self, measure):
        with pytest.raises(ValueError, match="lie in"):
            MEASURES[measure]([[1.5]], [[1]])
        with pytest.raises(ValueError, match="share"):
            MEASURES[measure]([[0.5, 0.5]], [[1]])


class TestByHand:
    def test_balanced_error_rate(self):
        assert saliency.balanced_error_rate([[0.9, 0.1, 0.1, 0.1, 0.7]], [[1, 1, 0, 0, 0]]) == pytest.approx(5 / 12)
        assert saliency.balanced_error_rate([[0.4, 0.1]], [[1, 0]], threshold=0.3) == 0


class TestMetrics:
    def test_values_of_images_and_classes(self):
        pairs = random_maps(4)
        p, t = (
            torch.from_numpy(np.stack([pair[i] for pair in pairs]).astype(float)).view(2, 2, 24, 31) for i in (0, 1)
        )
        metric = ProbabilityMetric(saliency.s_measure, "none")
        metric(y_pred=p, y=t)
        expected = [[saliency.s_measure(*pairs[0]), saliency.s_measure(*pairs[1])]]
        expected += [[saliency.s_measure(*pairs[2]), saliency.s_measure(*pairs[3])]]
        torch.testing.assert_close(metric.aggregate(), torch.tensor(expected, dtype=torch.float64))
        assert metric.get_buffer().shape == (2, 2)

    @pytest.mark.parametrize(
        "measure", ["e_measure", "weighted_f_measure", "mean_absolute_error", "balanced_error_rate"]
    )
    def test_mask_by_name_and_as_a_channel(self, measure):
        metric = ProbabilityMetric(getattr(saliency, measure))
        (p, target), inside = random_maps(2)[1], np.indices((24, 31)).sum(axis=0) > 20
        p_, t, m = (torch.from_numpy(a.astype(float))[None] for a in (p, target, inside))
        expected = MEASURES[measure](p, target, inside)
        metric(y_pred=[p_], y=[t], mask=[m])
        assert metric.aggregate().item() == pytest.approx(expected)
        metric.reset()
        metric(y_pred=[p_], y=[torch.cat([t, m])])
        assert metric.aggregate().item() == pytest.approx(expected)

    def test_stretched_inside_the_mask(self):
        p = torch.tensor([[[[0.2, 0.4, 1.0]]]])
        t, m = torch.tensor([[[[0.0, 1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
        metric = ProbabilityMetric(saliency.mean_absolute_error, normalize=True)
        metric(y_pred=p, y=t, mask=m)
        assert metric.aggregate().item() == 0

    def test_not_defined_is_left_out(self):
        metric = ProbabilityMetric(saliency.weighted_f_measure)
        p, t = torch.eye(9).expand(2, 1, 9, 9), torch.stack([torch.eye(9), torch.zeros(9, 9)])[:, None]
        metric(y_pred=p, y=t)
        assert metric.aggregate().item() == pytest.approx(1)


def test_maps_are_adversarial():
    assert len(adversarial_maps()) == 10
