"""Lines between points, over breaks and along strokes, against answers by hand."""

import numpy as np
import pytest

from topolora_monai.annotation import Prompts, bridge, half_width, next_wire, paint, trace
from topolora_monai.errors import ConfigError


def arc(size=120, radius=40, value=0.9):
    """A half circle above its middle, 3 pixels wide, and its ends (row, column)."""
    rows, columns = np.mgrid[:size, :size]
    middle = size // 2
    ring = abs(np.hypot(rows - middle, columns - middle) - radius) < 1.6
    ring[middle + 1 :] = False
    return np.where(ring, value, 0.01), (middle, middle - radius), (middle, middle + radius)


class TestTrace:
    def test_follows_a_structure_the_long_way_round(self):
        probability, start, end = arc()
        path = trace(probability, [start, end])
        assert (path[0].tolist(), path[-1].tolist()) == ([60, 20], [60, 100])
        assert (probability[tuple(path.T)] > 0.5).all()
        assert (np.abs(np.diff(path, axis=0)).max(axis=1) == 1).all()

    def test_is_straight_where_nothing_is_known(self):
        path = trace(np.full((50, 400), 0.2), [(10, 5), (10, 390)])
        assert path.tolist() == [[10, column] for column in range(5, 391)]

    def test_goes_through_every_point(self):
        path = trace(np.ones((9, 9)), [(0, 0), (8, 0), (8, 8)])
        assert path.tolist() == [[row, 0] for row in range(9)] + [[8, column] for column in range(1, 9)]

    @pytest.mark.parametrize(
        ("points", "message"), [([(1, 1)], "at least two"), ([(1, 1), (1, 9)], "x from 0 to 8, y from 0 to 4")]
    )
    def test_points_that_cannot_be(self, points, message):
        with pytest.raises(ConfigError, match=message):
            trace(np.ones((5, 9)), points)


class TestBridge:
    def test_joins_a_faint_break_of_a_loop(self):
        probability, *_ = arc()
        probability[:40, 58:63] *= 0.35
        mask = probability > 0.5
        path = bridge(mask, probability, (30, 60))
        assert mask[tuple(path[0])]
        assert mask[tuple(path[-1])]
        assert not mask[tuple(path[1:-1].T)].any()
        assert path[1:-1, 1].tolist() in ([58, 59, 60, 61, 62], [62, 61, 60, 59, 58])
        assert (probability[tuple(path.T)] > 0.3).all()

    def test_joins_the_two_nearest_ends_where_nothing_is_seen(self):
        mask = np.zeros((60, 80), bool)
        mask[30, :30] = mask[30, 45:] = mask[5, :] = True
        assert bridge(mask, np.where(mask, 0.9, 0.01), (31, 38)).tolist() == [[30, column] for column in range(29, 46)]

    def test_nothing_near(self):
        mask = np.zeros((60, 200), bool)
        mask[30, :30] = True
        with pytest.raises(ConfigError, match="no break to bridge here") as refused:
            bridge(mask, mask * 0.9, (31, 150))
        assert "(150, 31)" in str(refused.value)


def test_painted_as_wide_as_what_it_continues():
    mask = np.zeros((30, 60), bool)
    mask[12:17, :20] = True
    path = trace(np.where(mask, 0.9, 0.4), [(14, 10), (14, 50)])
    assert half_width(mask, path) == 3
    assert half_width(np.zeros_like(mask), path) == 2
    painted = paint(path, mask.shape, 3)
    assert painted[:, 30].nonzero()[0].tolist() == [12, 13, 14, 15, 16]
    assert not painted[:, 54:].any()


class TestPrompts:
    def test_network_is_told_points_along_a_stroke(self):
        stroke = {"points": [(10, 5), (73, 5)], "positive": False}
        told = Prompts.from_lists([(1, 2)], strokes=[stroke]).told
        assert [click[:] for click in told[:1]] == [(1.0, 2.0, True)]
        assert [(click.y, click.positive) for click in told[1:]] == [(5.0, False)] * 5
        assert [click.x for click in told[1:]] == [16.0, 29.0, 42.0, 54.0, 67.0]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ({"wires": [[(1, 1)]]}, "wire is traced between points"),
            ({"strokes": [{"points": []}]}, "stroke needs points"),
            ({"strokes": [{"points": [(1, 1)], "width": 0}]}, "width above 0"),
            ({"strokes": [{"points": [(1, 1)], "width": "wide"}]}, "other fields"),
            ({"strokes": [{"points": [(1, 1)], "colour": 3}]}, "other fields"),
            ({"strokes": ["x"]}, "other fields"),
            ({"bridges": [(1,)]}, "two coordinates"),
            ({"bridges": [(float("nan"), 1)]}, "finite"),
        ],
    )
    def test_lines_that_cannot_be(self, lines, message):
        with pytest.raises(ConfigError, match=message):
            Prompts.from_lists(**lines)

    def test_lines_outside_of_the_image(self):
        for lines in ({"wires": [[(1, 1), (90, 1)]]}, {"bridges": [(90, 1)]}, {"strokes": [{"points": [(90, 1)]}]}):
            with pytest.raises(ConfigError, match="outside of the image"):
                Prompts.from_lists(**lines).check_inside((50, 60))


def test_annotator_traces_the_longest_missed_branch():
    truth = np.zeros((60, 60), bool)
    truth[10, 5:55] = truth[10:50, 30] = True
    prediction = truth.copy()
    prediction[10, 40:45] = False
    prediction[20:45, 30] = False
    assert next_wire(prediction, truth) == ((30.0, 20.0), (30.0, 44.0))
    assert next_wire(truth, truth) is None
