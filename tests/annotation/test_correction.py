"""What follows a click: the piece of the same error around it, not a plain, not a neighbour, not the far end."""

import numpy as np
import pytest

from topolora_monai.annotation import apply_click
from topolora_monai.annotation.correction import local_contrast
from topolora_monai.annotation.prompts import Prompts
from topolora_monai.errors import ConfigError

SHAPE = (80, 160)
ANYWHERE = np.ones(SHAPE, bool)
NOTHING = np.zeros(SHAPE, bool)


def seen(structures, noise=0.1):
    return (structures + np.random.default_rng(0).normal(0, noise, SHAPE))[None].astype(np.float32)


@pytest.fixture
def line():
    mask = NOTHING.copy()
    mask[39:42, 20:140] = True
    return mask


def test_missed_line_follows_and_stays_thin(line):
    found = apply_click(NOTHING, seen(line), (40, 80), True, ANYWHERE)
    assert found[40, 80]
    assert found[line].sum() > 30  # 12 half-widths along it
    assert not found[~line].any()


def test_wrongly_added_branch_follows_and_the_trunk_stays(line):
    branch = NOTHING.copy()
    branch[8:39, 79:82] = True
    left = apply_click(line | branch, seen(line + 0.5 * branch), (15, 80), False, ANYWHERE)
    assert not left[10:21, 79:82].any()
    np.testing.assert_array_equal(left[39:], line[39:])


def test_wrongly_added_island_goes_whole_and_its_neighbour_stays(line):
    island = NOTHING.copy()
    island[50:53, 60:100] = True
    left = apply_click(line | island, seen(line | island), (51, 80), False, ANYWHERE)
    np.testing.assert_array_equal(left, line)
    partly = apply_click(line | island, seen(line | island), (51, 80), False, island & (np.arange(160) < 90))
    np.testing.assert_array_equal(partly, line | island & (np.arange(160) >= 90))
    at_its_rim = apply_click(line | island | np.roll(island, 3, axis=0), seen(NOTHING), (50, 60), False, ANYWHERE)
    assert at_its_rim[52:55, 62:100].all()  # a click there means the rim


def test_on_a_plain_only_a_dot_follows():
    found = apply_click(NOTHING, seen(NOTHING), (40, 80), True, ANYWHERE)
    assert 1 <= found.sum() <= 60


def test_nothing_beyond_the_window_changes(line):
    found = apply_click(NOTHING, seen(line, 0.01), (40, 80), True, ANYWHERE)
    assert not found[:, :20].any()
    assert not found[:, 141:].any()


def test_reach_follows_the_width():
    lengths = []
    for half in (1, 3):
        mask = NOTHING.copy()
        mask[40 - half : 41 + half] = True
        columns = np.flatnonzero(apply_click(NOTHING, seen(mask, 0.02), (40, 80), True, ANYWHERE).any(axis=0))
        lengths.append(columns[-1] - columns[0] + 1)
    assert lengths[0] < 40  # 8 half-widths of 2 pixels to each side, not up to the window's ends
    assert 1.5 * lengths[0] < lengths[1] < 80


def test_bounds_are_kept(line):
    allowed = ANYWHERE.copy()
    allowed[:, 84:] = False
    found = apply_click(NOTHING, seen(line), (40, 80), True, allowed)
    assert found.any()
    assert not found[:, 84:].any()


def test_pixel_is_obeyed_at_every_border():
    for pixel in [(0, 0), (0, 159), (79, 0), (79, 159)]:
        assert apply_click(NOTHING, seen(NOTHING), pixel, True, ~ANYWHERE)[pixel]
        assert not apply_click(ANYWHERE, seen(NOTHING), pixel, False, ~ANYWHERE)[pixel]


def test_contrast_finds_the_channel_that_tells_and_ignores_uneven_light(line):
    rng = np.random.default_rng(1)
    image = rng.normal(0.5, 0.05, (3, *SHAPE)).astype(np.float32)
    image[2] -= 0.3 * line
    image += np.linspace(0, 0.4, SHAPE[1], dtype=np.float32)
    contrast = local_contrast(image, line)
    assert contrast[line].mean() > 2
    assert abs(contrast[~line].mean()) < 0.3
    assert contrast.std() == pytest.approx(1, abs=1e-3)
    assert np.isfinite(local_contrast(np.zeros((1, 5, 5), np.float32), np.zeros((5, 5), bool))).all()


class TestPrompts:
    def test_nearer_divides_between_clicks_that_contradict(self):
        prompts = Prompts.from_lists([(20, 40)], [(30, 40)])
        near = prompts.nearer(prompts.clicks[0], ANYWHERE)
        assert near[40, 24]
        assert not near[40, 25]  # as far from both
        assert prompts.nearer(prompts.clicks[1], ANYWHERE)[40, 26]

    def test_box_holds_its_corners(self):
        allowed = Prompts(box=(2, 3, 4, 3)).allowed((10, 10))
        assert np.argwhere(allowed).tolist() == [[3, 2], [3, 3], [3, 4]]

    @pytest.mark.parametrize(
        "bad", [{"foreground": [(1,)]}, {"box": (1, 2, 3)}, {"box": (5, 5, 4, 9)}, {"foreground": [(np.nan, 1)]},
                {"label": 0}],
    )  # fmt: skip
    def test_impossible_ones_are_refused(self, bad):
        with pytest.raises(ConfigError):
            Prompts.from_lists(**bad)
