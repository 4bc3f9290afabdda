"""Shapes against areas known by geometry, a test of each pixel by itself, and an encoder written the slow way."""

import itertools

import numpy as np
import pytest
from skimage.draw import polygon2mask

from topolora_monai.data.shapes import decode_rle, draw_disc, draw_line, fill_polygon


def contains(points, x, y) -> bool:
    """Even-odd rule for one point, by the crossings of a ray to the right."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def encode(mask) -> tuple[list[int], str]:
    """COCO's run lengths and their text, pixel by pixel and bit by bit."""
    lengths, value = [0], False
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if bool(mask[row, column]) != value:
                lengths.append(0)
                value = not value
            lengths[-1] += 1
    text = ""
    for index, length in enumerate(lengths):
        number = length - lengths[index - 2] if index > 2 else length
        groups = next(n for n in range(1, 10) if -(2 ** (5 * n - 1)) <= number < 2 ** (5 * n - 1))
        bits = format(number % 2 ** (5 * groups), f"0{5 * groups}b")
        fives = [bits[i : i + 5] for i in range(0, len(bits), 5)][::-1]
        text += "".join(chr(48 + int(five, 2) + 32 * (i < groups - 1)) for i, five in enumerate(fives))
    return lengths, text


class TestPolygon:
    @pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 2), (3.5, 2.5), (2.25, 4.75)])
    def test_square_of_ten_has_a_hundred_pixels_wherever_it_lies(self, x, y):
        mask = fill_polygon([(x, y), (x + 10, y), (x + 10, y + 10), (x, y + 10)], (20, 24))
        assert mask.shape == (20, 24)
        assert mask.sum() == 100

    def test_pixels_of_a_square_on_the_grid(self):
        expected = np.zeros((8, 9), bool)
        expected[1:4, 2:7] = True
        assert np.array_equal(fill_polygon([(2, 1), (7, 1), (7, 4), (2, 4)], (8, 9)), expected)

    def test_neighbours_share_no_pixel_and_leave_no_gap(self):
        centre, corners = (10.5, 9.5), [(0, 0), (20, 0), (20, 20), (0, 20)]
        parts = [
            fill_polygon([a, b, centre], (20, 20)) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
        ]
        assert (np.sum(parts, axis=0) == 1).all()

    def test_random_polygons_pixel_by_pixel(self):
        rng = np.random.default_rng(0)
        for _ in range(20):
            points = rng.uniform(-6, 26, (int(rng.integers(3, 9)), 2))  # crosses itself and leaves the image
            expected = [[contains(points.tolist(), j + 0.5, i + 0.5) for j in range(22)] for i in range(18)]
            assert np.array_equal(fill_polygon(points, (18, 22)), expected)

    def test_agrees_with_scikit_image_away_from_ties(self):
        points = np.random.default_rng(1).uniform(0, 60, (12, 2))
        assert np.array_equal(fill_polygon(points, (50, 60)), polygon2mask((50, 60), points[:, ::-1] - 0.5))

    def test_outside_and_without_area(self):
        assert not fill_polygon([(30, 0), (40, 0), (40, 9)], (20, 20)).any()
        assert not fill_polygon([(-9, -9), (-1, -9), (-1, -1)], (20, 20)).any()
        assert not fill_polygon([(1, 1), (9, 9), (1, 1)], (20, 20)).any()
        assert fill_polygon([(-1e9, -1e9), (1e9, -1e9), (1e9, 1e9), (-1e9, 1e9)], (20, 20)).all()


class TestDiscAndLine:
    def test_disc_is_the_pixels_near_its_centre(self):
        rows, columns = np.mgrid[:30, :40]
        expected = np.hypot(columns + 0.5 - 21.3, rows + 0.5 - 27.6) < 7.2  # leaves the image below
        assert np.array_equal(draw_disc((21.3, 27.6), 7.2, (30, 40)), expected)

    def test_width_is_across_the_line(self):
        level = draw_line([(10, 10), (30, 10)], 6, (20, 40))
        assert (level[:, 10:30].sum(axis=0) == 6).all()
        assert level[7:13, 10:30].all()
        area = draw_line([(20, 20), (80, 57.3)], 9, (100, 100)).sum()
        assert area == pytest.approx(9 * np.hypot(60, 37.3) + np.pi * 4.5**2, rel=0.01)

    def test_bent_line_is_the_pixels_near_it(self):
        nodes = np.array([(5.2, 4.1), (31.7, 9.3), (12.4, 26.8)])
        centres = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(32) + 0.5), axis=-1)
        distance = np.full((32, 40), np.inf)
        for start, end in itertools.pairwise(nodes):
            along = np.clip((centres - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            distance = np.minimum(distance, np.linalg.norm(centres - start - along[..., None] * (end - start), axis=-1))
        assert np.array_equal(draw_line(nodes, 5, (32, 40)), distance < 2.5)


class TestRunLengths:
    @pytest.mark.parametrize(
        ("text", "lengths"),
        [("414", [4, 1, 4]), ("122O", [1, 2, 2, 1]), ("Z11", [42, 1]), ("0T3", [0, 100]), ("1111", [1, 1, 1, 2])],
    )
    def test_texts_worked_out_by_hand(self, text, lengths):
        expected = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        assert np.array_equal(decode_rle(text, (sum(lengths), 1))[:, 0], expected)

    def test_columns_first(self):
        assert decode_rle([2, 3, 1], (2, 3)).astype(int).tolist() == [[0, 1, 1], [0, 1, 0]]

    @pytest.mark.parametrize("density", [0, 0.003, 0.2, 0.5, 1])
    def test_slow_encoder_and_back(self, density):
        mask = np.random.default_rng(2).random((61, 47)) < density
        lengths, text = encode(mask)
        assert np.array_equal(decode_rle(lengths, mask.shape), mask)
        assert np.array_equal(decode_rle(text, mask.shape), mask)

    def test_long_runs(self):
        mask = np.zeros((400, 500), bool)
        mask[100:300, 200:202] = True
        mask[350, 499] = True
        lengths, text = encode(mask)
        assert max(lengths) > 2**15
        assert np.array_equal(decode_rle(text, mask.shape), mask)

    @pytest.mark.parametrize(
        "counts", ["41", "41P", "4 4", "4\u00ff4", "1N:", [4, 1], [4, -1, 6], [4.0, 5.0], ["4", "5"], [True, 8], []]
    )
    def test_damage_is_refused(self, counts):
        with pytest.raises(ValueError, match=r"run lengths"):
            decode_rle(counts, (3, 3))
