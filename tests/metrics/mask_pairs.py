"""Pairs of masks to check metrics on: 50 random ones and those that break careless definitions."""

import numpy as np
from scipy.ndimage import gaussian_filter


def random_pairs(shape=(8, 9), count=50, seed=0):
    """Noise of every density and smoothness; every second target is the prediction with some pixels changed."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        smooth = (0, 0.6, 1.0)[number % 3]
        one, other = (
            gaussian_filter(rng.standard_normal(shape), smooth) if smooth else rng.standard_normal(shape)
            for _ in range(2)
        )
        level = rng.uniform(0.25, 0.65)
        prediction = one > np.quantile(one, level)
        changed = prediction ^ (rng.random(shape) < 0.08)
        pairs.append((prediction, changed if number % 2 else other > np.quantile(other, level)))
    return pairs


def walled_pairs(shape=(12, 13), count=20, seed=7):
    """Frames divided by walls, other ones in target and prediction: holes that overlap several of the other's."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        both = np.zeros((2, *shape), bool)
        both[:, [0, -1]] = both[:, :, [0, -1]] = True
        for mask in both:
            for _ in range(2):
                mask[rng.integers(2, shape[0] - 2)] = True
                mask[:, rng.integers(2, shape[1] - 2)] = True
        both &= rng.random(both.shape) > 0.02
        pairs.append((both[0], both[1]))
    return pairs


def adversarial_pairs(size=9):
    """By name; of shape (size, size), an odd number of at least 9."""
    empty, full = np.zeros((size, size), bool), np.ones((size, size), bool)
    pixel = empty.copy()
    pixel[2, 3] = True
    other_pixel = empty.copy()
    other_pixel[6, 3] = True
    diagonal = np.eye(size, dtype=bool)
    chequered = np.indices((size, size)).sum(axis=0) % 2 == 0
    middle = size // 2
    distance = np.abs(np.indices((size, size)) - middle).max(axis=0)
    nested, frame = distance % 2 == 0, distance == middle
    ring = distance == middle - 2
    cut = ring.copy()
    cut[middle, : middle + 1] = False
    touching = empty.copy()
    touching[0:3, 0:3] = touching[3:6, 3:6] = True
    by_corners = empty.copy()
    by_corners[2, 3] = by_corners[3, 2] = by_corners[3, 4] = by_corners[4, 3] = True
    comb = empty.copy()
    comb[0], comb[:, ::2] = True, True
    open_to_border = ring.copy()
    open_to_border[middle, :middle] = True
    return {
        "both empty": (empty, empty),
        "both full": (full, full),
        "empty and full": (empty, full),
        "full and empty": (full, empty),
        "a pixel and nothing": (pixel, empty),
        "two different pixels": (pixel, other_pixel),
        "a diagonal and the other": (diagonal, diagonal[::-1]),
        "a chequerboard and its complement": (chequered, ~chequered),
        "a chequerboard and everything": (chequered, full),
        "nested rings and the outermost": (nested, frame),
        "nested rings and those between": (nested, ~nested),
        "a ring and a cut one": (ring, cut),
        "a ring and one moved by a pixel": (ring, np.roll(ring, 1, axis=1)),
        "a ring and one moved past its wall": (ring, np.roll(ring, (2, 2), axis=(0, 1))),
        "squares that touch by a corner": (touching, full),
        "a hole closed by corners": (by_corners, pixel),
        "a comb and its teeth": (comb, comb & (np.arange(size)[:, None] > 0)),
        "a frame and everything": (frame, full),
        "a loop with a tail to the border": (open_to_border, ring),
        "a part inside a ring of the other": (distance == 0, ring),
    }


def all_pairs():
    return [*random_pairs(), *adversarial_pairs().values()]
