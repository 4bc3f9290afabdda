"""Betti numbers and Betti matching against linear algebra over GF(2), breaks by hand, all as MONAI metrics."""

import importlib.util
import itertools
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler
from scipy import ndimage
from skimage.morphology import skeletonize

from tests.metrics.mask_pairs import adversarial_pairs, all_pairs, random_pairs, walled_pairs
from topolora_monai.metrics import (
    ImageMetric,
    betti_error,
    betti_matching,
    betti_matching_error,
    betti_numbers,
    cldice,
    false_components,
    hd95,
    skeleton_breaks,
)


def unmatched(prediction, target):
    """Errors of components and of holes."""
    return tuple(betti_matching_error(prediction, target, dimension=dimension) for dimension in (0, 1))


# -- homology of closed pixels over GF(2), a chain being the bits of a whole number --


def closed_cells(mask):
    """Cells of the union of closed pixels: odd coordinates are open intervals, even ones are points."""
    cells = set()
    for pixel in np.argwhere(mask):
        cells.update(itertools.product(*((2 * x, 2 * x + 1, 2 * x + 2) for x in pixel.tolist())))
    return cells


class Complex:
    def __init__(self, mask):
        self.shape = tuple(2 * n + 1 for n in mask.shape)
        self.cells = closed_cells(mask)

    def bit(self, cell):
        return 1 << int(np.ravel_multi_index(cell, self.shape))

    def boundaries(self, dimension):
        """Boundary of every cell of a dimension, and the cell itself."""
        for cell in self.cells:
            if sum(x % 2 for x in cell) == dimension:
                chain = 0
                for axis, x in enumerate(cell):
                    if x % 2:
                        for step in (-1, 1):
                            chain ^= self.bit((*cell[:axis], x + step, *cell[axis + 1 :]))
                yield chain, self.bit(cell)

    def cycles(self, dimension):
        """A basis of the kernel of the boundary map."""
        pivots, kernel = {}, []
        for boundary, cell in self.boundaries(dimension):
            chain, sources = boundary, cell
            while chain and chain.bit_length() in pivots:
                other, others = pivots[chain.bit_length()]
                chain, sources = chain ^ other, sources ^ others
            if chain:
                pivots[chain.bit_length()] = chain, sources
            else:
                kernel.append(sources)
        return kernel

    def rank_of(self, cycles, dimension):
        """Rank of cycles of a part in the homology of the whole."""
        span = Span(chain for chain, _ in self.boundaries(dimension + 1))
        before = span.rank
        span.extend(cycles)
        return span.rank - before


class Span:
    def __init__(self, chains):
        self.pivots = {}
        self.extend(chains)

    def extend(self, chains):
        for added in chains:
            chain = added
            while chain and chain.bit_length() in self.pivots:
                chain ^= self.pivots[chain.bit_length()]
            if chain:
                self.pivots[chain.bit_length()] = chain

    @property
    def rank(self):
        return len(self.pivots)


def betti_by_ranks(mask):
    whole = Complex(mask)
    return tuple(whole.rank_of(whole.cycles(d), d) for d in range(mask.ndim))


def holes_smallest_first(mask):
    """Background regions, by edge, that do not reach the border: flood fill from every pixel in raster order."""
    height, width = mask.shape
    left = {(r, c) for r in range(height) for c in range(width) if not mask[r, c]}
    holes = []
    for start in sorted(left):
        if start not in left:
            continue
        region, ahead = set(), [start]
        left.discard(start)
        while ahead:
            r, c = ahead.pop()
            region.add((r, c))
            for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if near in left:
                    left.discard(near)
                    ahead.append(near)
        if all(0 < r < height - 1 and 0 < c < width - 1 for r, c in region):
            holes.append(region)
    return sorted(holes, key=len)


def matched_by_ranks(prediction, target):
    """Induced matching from ranks of image modules.

    In dimension 0, what the images of both have in common in the homology of the union. In dimension 1 the holes of
    the union are filled one after the other, smallest first; where that takes a class off both images, two bars of
    equal death are matched.
    """
    union = prediction | target
    whole, parts = Complex(union), (Complex(prediction), Complex(target))
    points = [part.cycles(0) for part in parts]
    ranks = [whole.rank_of(one, 0) for one in points]
    components = sum(ranks) - whole.rank_of(points[0] + points[1], 0)
    loops = [part.cycles(1) for part in parts]
    holes, filled = 0, union.copy()
    alive = [whole.rank_of(one, 1) for one in loops]
    for region in holes_smallest_first(union):
        filled[tuple(np.array(sorted(region)).T)] = True
        left = [Complex(filled).rank_of(one, 1) for one in loops]
        holes += (alive[0] - left[0]) * (alive[1] - left[1])
        alive = left
    assert alive == [0, 0]
    return components, holes


class TestBettiNumbers:
    def test_agree_with_ranks_of_boundary_maps(self):
        for pair in all_pairs():
            for mask in pair:
                assert betti_numbers(mask) == betti_by_ranks(mask)

    def test_agree_in_3d(self):
        rng = np.random.default_rng(3)
        shell = np.ones((4, 4, 5), bool)
        shell[1:3, 1:3, 1:4] = False
        bored = np.ones((3, 3, 3), bool)
        bored[1, 1] = False
        masks = [shell, bored, ~shell, np.zeros((3, 3, 3), bool), *(rng.random((10, 3, 4, 4)) > 0.6)]
        assert betti_numbers(shell) == (1, 0, 1)
        assert betti_numbers(bored) == (1, 1, 0)
        for mask in masks:
            assert betti_numbers(mask) == betti_by_ranks(mask)

    def test_agree_with_gudhi(self):
        gudhi = pytest.importorskip("gudhi")
        for mask, _ in random_pairs((40, 50), 10) + random_pairs((9, 10, 8), 6):
            cells = gudhi.CubicalComplex(top_dimensional_cells=1.0 - mask)
            cells.compute_persistence()
            assert list(betti_numbers(mask)) == cells.persistent_betti_numbers(0.5, 0.5)[: mask.ndim]

    def test_of_empty_and_full(self):
        assert betti_numbers(np.zeros((5, 5))) == (0, 0)
        assert betti_numbers(np.ones((5, 5))) == (1, 0)

    def test_background_connects_by_edges_only(self):
        by_corners = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
        assert betti_numbers(by_corners) == (1, 1)

    def test_refuse_other_shapes(self):
        with pytest.raises(ValueError, match="2-D or 3-D"):
            betti_numbers(np.zeros(5))


class TestBettiError:
    @pytest.mark.parametrize("dimension", [0, 1])
    def test_agrees_with_ranks(self, dimension):
        for prediction, target in all_pairs():
            expected = abs(betti_by_ranks(prediction)[dimension] - betti_by_ranks(target)[dimension])
            assert betti_error(prediction, target, dimension) == expected

    def test_patches_tile_with_smaller_ones_at_the_ends(self):
        for prediction, target in random_pairs((10, 13), 6):
            errors = [
                abs(betti_numbers(prediction[r : r + 4, c : c + 4])[1] - betti_numbers(target[r : r + 4, c : c + 4])[1])
                for r in (0, 4, 8)
                for c in (0, 4, 8, 12)
            ]
            assert betti_error(prediction, target, 1, patch_size=4) == pytest.approx(sum(errors) / 12, abs=1e-12)

    def test_patches_do_not_cancel(self):
        left, right = np.zeros((2, 8, 16), bool)
        left[3, 3] = right[3, 12] = True
        assert betti_error(left, right, 0) == 0
        assert betti_error(left, right, 0, patch_size=8) == 1

    def test_only_the_mask_counts(self):
        prediction, target = np.zeros((2, 8, 16), bool)
        prediction[2, 2] = target[2, 12] = target[5, 12] = True
        right = np.zeros((8, 16), bool)
        right[:, 8:] = True
        assert betti_error(prediction, target, 0, right) == 2
        assert betti_error(prediction, target, 0, right, patch_size=8) == 2
        assert betti_error(prediction, target, 0, ~right, patch_size=8) == 1
        assert math.isnan(betti_error(prediction, target, 0, np.zeros((8, 16))))

    def test_refuses_what_it_cannot_count(self):
        mask = np.zeros((4, 4))
        with pytest.raises(ValueError, match="dimension"):
            betti_error(mask, mask, 2)
        with pytest.raises(ValueError, match="patch_size"):
            betti_error(mask, mask, 0, patch_size=0)
        with pytest.raises(ValueError, match="differ in shape"):
            betti_error(mask, mask[:3], 0)


class TestBettiMatching:
    def test_agrees_with_induced_matching_by_ranks_on_random_masks(self):
        found = []
        for prediction, target in random_pairs((8, 9), 50):
            found.append(betti_matching(prediction, target).matched)
            assert found[-1] == matched_by_ranks(prediction, target)
        assert len(set(found)) > 8  # the masks are not all alike

    def test_agrees_where_holes_overlap_several(self):
        found = []
        for prediction, target in walled_pairs():
            found.append(betti_matching(prediction, target).matched)
            assert found[-1] == matched_by_ranks(prediction, target)
        assert max(holes for _, holes in found) > 3

    @pytest.mark.parametrize("name", adversarial_pairs())
    def test_agrees_on_adversarial_masks(self, name):
        prediction, target = adversarial_pairs()[name]
        matched = matched_by_ranks(prediction, target)
        expected = [
            sum(abs(b - m) for b in both)
            for *both, m in zip(betti_by_ranks(prediction), betti_by_ranks(target), matched, strict=True)
        ]
        assert list(unmatched(prediction, target)) == expected

    def test_agrees_with_the_published_code(self):
        published = published_matching()
        lower = 0
        for prediction, target in [*random_pairs((12, 13), 50, seed=5), *walled_pairs(), *adversarial_pairs().values()]:
            if not prediction.any() or not target.any():
                continue  # it leaves out the component that never dies, which an empty mask does not have
            ours = betti_matching(prediction, target)
            assert published(prediction, target) == ours.matched[1]
            theirs = published.unmatched_components(prediction, target)
            assert theirs <= unmatched(prediction, target)[0]
            lower += theirs == unmatched(prediction, target)[0]
        assert lower > 20

    def test_by_hand(self):
        ring = adversarial_pairs()["a ring and a cut one"][0]
        two = np.concatenate([ring, ring], axis=1)
        left = np.concatenate([ring, np.zeros_like(ring)], axis=1)
        assert betti_matching(two, left) == ((1, 1), (1, 1), (0, 0))
        assert unmatched(left, left[:, ::-1]) == (2, 2)
        wall = ring.copy()
        wall[4] |= ring.any(axis=0)
        assert betti_matching(wall, ring) == ((1, 1), (0, 1), (0, 0))

    def test_a_sliver_beside_the_wall_does_not_cost_the_loop(self):
        """The loop of the prediction bulges past the wall of the target, in whichever direction."""
        target = np.zeros((21, 21), bool)
        target[5:16, 5:16] = True
        target[6:15, 6:15] = False
        bulging = target.copy()
        bulging[5, 8:13] = False
        bulging[3, 8:13] = bulging[3:6, 7] = bulging[3:6, 13] = True
        for turns in range(4):
            assert unmatched(np.rot90(bulging, turns), np.rot90(target, turns)) == (0, 0)

    def test_is_symmetric_and_at_least_the_betti_error(self):
        for prediction, target in random_pairs((30, 30), 20):
            errors = unmatched(prediction, target)
            assert errors == unmatched(target, prediction)
            assert all(error >= betti_error(prediction, target, d) for d, error in enumerate(errors))
            assert unmatched(target, target) == (0, 0)

    def test_of_empty_masks(self):
        ring = adversarial_pairs()["a ring and a cut one"][0]
        empty = np.zeros_like(ring)
        assert unmatched(empty, empty) == (0, 0)
        assert unmatched(empty, ring) == unmatched(ring, empty) == (1, 1)
        assert math.isnan(betti_matching_error(ring, ring, empty))
        assert betti_matching_error(empty, ring) == 2

    def test_refuses_3d(self):
        with pytest.raises(ValueError, match="must be 2-D"):
            betti_matching(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)))


def published_matching():
    """The C++ code of the method's authors, as built for ``topolosses``; its pixels are points that touch by edges.

    On a grid twice as fine, where edges and corners of pixels are points too, they touch as closed pixels do. That
    holes are filled smallest first is said by values.
    """
    found = importlib.util.find_spec("topolosses")
    if found is None:
        pytest.skip("needs topolosses")
    folder = Path(found.submodule_search_locations[0]) / "losses" / "betti_matching" / "src"
    # Loaded by itself: the package around it wants to be given a device.
    library = next(folder.glob("betti_matching*.so"))
    spec = importlib.util.spec_from_file_location("betti_matching", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def fine(mask):
        grid = np.zeros([2 * n + 1 for n in mask.shape], bool)
        grid[tuple(np.array(sorted(closed_cells(mask)), int).reshape(-1, 2).T)] = True
        return grid

    def holes(prediction, target):
        union = prediction | target
        later = np.ones([2 * n + 1 for n in union.shape])
        regions, _ = ndimage.label(~fine(union))
        for order, region in enumerate(holes_smallest_first(union)):
            r, c = min(region)
            later[regions == regions[2 * r + 1, 2 * c + 1]] = 2 + order
        images = [np.where(fine(mask), 0.0, later) for mask in (prediction, target)]
        result = module.compute_matching(*images)
        births = (result.input1_matched_birth_coordinates[1], result.input2_matched_birth_coordinates[1])
        values = [image[tuple(np.asarray(b).reshape(-1, 2).T)] for image, b in zip(images, births, strict=True)]
        return int(((values[0] == 0) & (values[1] == 0)).sum())

    def unmatched_components(prediction, target):
        result = module.compute_matching(*(1.0 - fine(mask) for mask in (prediction, target)))
        return int(result.num_unmatched_input1[0] + result.num_unmatched_input2[0])

    holes.unmatched_components = unmatched_components
    return holes


def test_cldice_agrees_with_counts_of_skeleton_pixels():
    for prediction, target in [*random_pairs((20, 22), 50), *adversarial_pairs(15).values()]:
        pixels = [{tuple(p) for p in np.argwhere(mask)} for mask in (prediction, target)]
        lines = [{tuple(p) for p in np.argwhere(skeletonize(mask))} for mask in (prediction, target)]
        expected = math.nan
        if all(pixels):
            precision, sensitivity = (
                len(lines[0] & pixels[1]) / len(lines[0]),
                len(lines[1] & pixels[0]) / len(lines[1]),
            )
            expected = 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0
        elif any(pixels):
            expected = 0
        assert cldice(prediction, target) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def line(width=1, length=40):
    mask = np.zeros((21, length), bool)
    mask[10 - width // 2 : 11 + width // 2, 2:-2] = True
    return mask


class TestSkeletonBreaks:
    def test_one_for_each_gap(self):
        broken = line(3)
        broken[:, 10:14] = broken[:, 20:23] = False
        first, second = skeleton_breaks(broken, line(3))
        assert first == (10, 11.5, 4, 2.5)
        assert second[:3] == (10, 21, 3)

    def test_none_where_the_end_or_everything_is_missed(self):
        short = line()
        short[:, :15] = False
        assert skeleton_breaks(short, line()) == []
        assert skeleton_breaks(np.zeros_like(short), line()) == []
        assert skeleton_breaks(line(), np.zeros_like(short)) == []
        assert skeleton_breaks(line(), line(5)) == []

    def test_none_where_the_prediction_goes_beside_the_centreline(self):
        beside = line()
        beside[10, 12:18] = False
        assert len(skeleton_breaks(beside, line())) == 1
        beside[13, 12:18] = beside[10:14, 11] = beside[10:14, 18] = True
        assert skeleton_breaks(beside, line()) == []

    def test_a_detour_further_off_does_not_mend(self):
        far = line()
        far[10, 12:18] = False
        far[19, 12:18] = far[10:20, 11] = far[10:20, 18] = True
        assert len(skeleton_breaks(far, line())) == 1

    def test_a_detour_inside_the_box_of_a_slanted_gap_does_not_mend(self):
        slanted = np.eye(40, dtype=bool)
        broken = slanted.copy()
        broken[8:32, 8:32] = False
        broken[7:32, 7] = broken[32, 7:33] = True
        (found,) = skeleton_breaks(broken, slanted)
        assert found[:3] == (19.5, 19.5, 24)

    def test_a_gap_in_a_loop(self):
        grid = np.indices((41, 41)) - 20
        loop = np.abs(np.hypot(*grid) - 14) < 1.5
        cut = loop & ~((np.abs(grid[0]) < 3) & (grid[1] > 0))
        (found,) = skeleton_breaks(cut, loop)
        assert (found.row, found.length) == (20, 5)
        assert found.col == pytest.approx(34, abs=1)

    def test_at_a_junction_one(self):
        cross = line()
        cross[:, 20] = True
        broken = cross.copy()
        broken[8:13, 18:23] = False
        (found,) = skeleton_breaks(broken, cross)
        assert (found.row, found.col) == (10, 20)

    def test_only_the_mask_counts(self):
        broken = line()
        broken[:, 10:14] = False
        mask = np.ones_like(broken)
        assert len(skeleton_breaks(broken, line(), mask)) == 1
        mask[:, :12] = False
        assert skeleton_breaks(broken, line(), mask) == []

    def test_number_of_those_cut_at_random(self):
        """A straight line with gaps at least 15 pixels apart has as many breaks as gaps, in their places."""
        rng = np.random.default_rng(1)
        for _ in range(20):
            whole = line(int(rng.choice([1, 3, 5])), 200)
            starts = np.flatnonzero(rng.random(10) < 0.6) * 18 + 12
            lengths = rng.integers(1, 4, len(starts))
            broken = whole.copy()
            for start, length in zip(starts, lengths, strict=True):
                broken[:, start : start + length] = False
            found = skeleton_breaks(broken, whole)
            assert [one.length for one in found] == lengths.tolist()
            assert [one.col for one in found] == (starts + (lengths - 1) / 2).tolist()


class TestFalseComponents:
    def test_agree_with_a_search_for_each_part(self):
        for prediction, target in [*random_pairs((25, 25), 50), *adversarial_pairs().values()]:
            found = false_components(prediction & (np.arange(len(prediction))[:, None] % 4 > 0), target)
            parts, number = ndimage.label(prediction & (np.arange(len(prediction))[:, None] % 4 > 0), np.ones((3, 3)))
            near = {
                tuple(p)
                for r, c in np.argwhere(target)
                for p in itertools.product((r - 1, r, r + 1), (c - 1, c, c + 1))
            }
            expected, last = np.zeros_like(found), 0
            for part in range(1, number + 1):
                if not {tuple(p) for p in np.argwhere(parts == part)} & near:
                    last += 1
                    expected[parts == part] = last
            np.testing.assert_array_equal(found, expected)

    def test_in_3d_and_outside_the_mask(self):
        prediction = np.zeros((3, 3, 9), bool)
        prediction[1, 1, [0, 4, 8]] = True
        target = prediction & (np.arange(9) == 4)
        assert false_components(prediction, target).max() == 2
        assert false_components(prediction, target, np.arange(9) + np.zeros((3, 3, 1)) > 2).max() == 1
        assert false_components(prediction, prediction).max() == 0
        assert false_components(prediction, np.zeros_like(prediction)).max() == 3


def batch(pairs):
    """(B, K, H, W) of prediction and target: two images of two classes."""
    masks = torch.tensor(np.array(pairs[:4])).float()
    return masks[:, 0].reshape(2, 2, *masks.shape[2:]), masks[:, 1].reshape(2, 2, *masks.shape[2:])


METRICS = {
    "clDice": partial(cldice),
    "Betti-0": partial(betti_error, dimension=0),
    "Betti-1 in patches": partial(betti_error, dimension=1, patch_size=16),
    "matching": partial(betti_matching_error),
    "matching of holes": partial(betti_matching_error, dimension=1),
}


@pytest.mark.parametrize("name", METRICS)
class TestAsMetric:
    def test_scores_each_image_and_class(self, name):
        function = METRICS[name]
        y_pred, y = batch(random_pairs((30, 33), 4))
        metric = ImageMetric(function)
        metric(y_pred=y_pred, y=y)
        expected = [[function(y_pred[b, k].numpy(), y[b, k].numpy()) for k in range(2)] for b in range(2)]
        np.testing.assert_allclose(metric.get_buffer().numpy(), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(metric.aggregate("none").numpy(), expected, rtol=0, atol=1e-6)
        assert metric.aggregate().item() == pytest.approx(np.mean(expected), abs=1e-6)
        assert metric.aggregate("mean_batch").tolist() == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-6)

    def test_takes_lists_and_masks_of_three_kinds(self, name):
        function = METRICS[name]
        y_pred, y = batch(random_pairs((30, 33), 4))
        mask = torch.zeros(2, 1, 30, 33)
        mask[0, 0, :20], mask[1, 0, :, 10:] = 1, 1
        expected = [
            [function(y_pred[b, k].numpy(), y[b, k].numpy(), mask=mask[b, 0].numpy()) for k in range(2)]
            for b in range(2)
        ]
        with_channel = torch.cat([y, mask], dim=1)
        for given in (
            lambda m: m(y_pred, y, mask=mask),
            lambda m: m(y_pred, y, mask=mask.expand(-1, 2, -1, -1)),
            lambda m: m(y_pred, with_channel),
            lambda m: m(list(y_pred), list(with_channel)),
            lambda m: m(list(y_pred), list(y), mask=list(mask)),
        ):
            metric = ImageMetric(function)
            np.testing.assert_allclose(given(metric).numpy(), expected, rtol=0, atol=1e-9)
            assert metric.get_buffer().shape == (2, 2)

    def test_through_the_ignite_handler(self, name):
        function = METRICS[name]
        y_pred, y = batch(random_pairs((30, 33), 4))
        engine = Engine(lambda _, at: (y_pred[at : at + 1], y[at : at + 1]))
        IgniteMetricHandler(ImageMetric(function)).attach(engine, "score")
        engine.run([0, 1])
        expected = [[function(y_pred[b, k].numpy(), y[b, k].numpy()) for k in range(2)] for b in range(2)]
        assert engine.state.metrics["score"] == pytest.approx(np.mean(expected), abs=1e-6)
        assert engine.state.metric_details["score"].shape == (2, 2)

    def test_state_does_not_grow_with_the_image(self, name):
        held = []
        for size in (16, 64):
            metric = ImageMetric(METRICS[name])
            metric(torch.ones(3, 2, size, size), torch.ones(3, 2, size, size))
            held.append(sum(value.untyped_storage().nbytes() for value in metric._buffers[0]))
        assert held[0] == held[1]


class TestImageMetric:
    def test_leaves_out_what_is_not_defined(self):
        metric = ImageMetric(cldice)
        y = torch.zeros(2, 1, 9, 9)
        y[0, 0, 4] = 1
        metric(y, y)
        assert metric.aggregate().item() == 1
        assert math.isnan(metric.aggregate("none")[1, 0])

    def test_nothing_defined_is_nan_and_not_perfect(self):
        empty = torch.zeros(2, 1, 9, 9)
        for metric in (ImageMetric(cldice), ImageMetric(hd95)):
            metric(empty, empty)
            assert math.isnan(metric.aggregate())
            assert torch.isnan(metric.aggregate("mean_channel")).all()
        outside = ImageMetric(betti_matching_error)
        outside(empty, empty, mask=empty)
        assert math.isnan(outside.aggregate())

    def test_reset_forgets(self):
        metric = ImageMetric(betti_error, dimension=0)
        metric(torch.zeros(1, 1, 5, 5), torch.ones(1, 1, 5, 5))
        metric.reset()
        with pytest.raises(ValueError, match="no image"):
            metric.aggregate()

    def test_says_which_shapes_do_not_fit(self):
        metric = ImageMetric(betti_error, dimension=0)
        with pytest.raises(ValueError, match="differ in shape"):
            metric(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 6))
        with pytest.raises(ValueError, match="validity mask"):
            metric(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5), mask=torch.zeros(1, 1, 5, 6))
        with pytest.raises(ValueError, match="needs a target"):
            metric(torch.zeros(1, 1, 5, 5))
        with pytest.raises(ValueError, match="dimension"):
            ImageMetric(betti_matching_error, dimension=2)(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5))

    def test_volumes(self):
        metric = ImageMetric(betti_error, dimension=0)
        y = torch.zeros(1, 1, 4, 4, 4)
        y[..., 0, 0, 0] = y[..., 3, 3, 3] = 1
        assert metric(torch.zeros_like(y), y).item() == 2
