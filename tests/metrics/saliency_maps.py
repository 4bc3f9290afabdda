"""Probability maps to check measures on, and how py-sod-metrics scores them.

``saliency_reference.json`` holds the answers of py-sod-metrics 1.6.2, whose requirements (numpy below 2.3.5,
scikit-image below 0.26) exclude those pinned here; nor does it know masks, so that it cannot score in place of ours.
"""

import numpy as np
from scipy.ndimage import gaussian_filter


def all_maps():
    return {f"random {k}": pair for k, pair in enumerate(random_maps())} | adversarial_maps()


def random_maps(count=50, shape=(24, 31)):
    """Targets of every density; answers from unrelated to nearly right, away from the edges of 8-bit levels."""
    random = np.random.RandomState(7)  # its stream is the same in every version of numpy
    pairs = []
    for number in range(count):
        field = gaussian_filter(random.standard_normal(shape), (0, 1, 3)[number % 3])
        target = field > np.quantile(field, random.uniform(0.2, 0.97))
        noise = gaussian_filter(random.standard_normal(shape), number % 2)
        mixed = target * random.uniform(0, 4) + noise
        stretched = (mixed - mixed.min()) / (mixed.max() - mixed.min())
        pairs.append((quantised(stretched ** random.uniform(0.5, 2)), target))
    return pairs


def adversarial_maps(size=12):
    empty, full = np.zeros((size, size), bool), np.ones((size, size), bool)
    pixel, corner, frame = empty.copy(), empty.copy(), full.copy()
    pixel[5, 7] = corner[-1, -1] = True
    frame[1:-1, 1:-1] = False
    chequered = np.indices(empty.shape).sum(axis=0) % 2 == 0
    ramp = quantised(np.linspace(0, 1, size * size).reshape(size, size))
    return {
        "nothing on nothing": (empty * 1.0, empty),
        "all on nothing": (full * 1.0, empty),
        "a ramp on nothing": (ramp, empty),
        "nothing on all": (empty * 1.0, full),
        "a ramp on all": (ramp, full),
        "one pixel and its opposite": (1.0 - pixel, pixel),
        "a ramp on the last corner": (ramp, corner),
        "chequers and their complement": (1.0 * ~chequered, chequered),
        "a constant on a frame": (np.full(frame.shape, 128.5 / 256), frame),
        "a line one pixel high": (ramp[:1], chequered[:1]),
    }


def quantised(values):
    return (np.clip(np.floor(values * 256), 0, 255) + 0.5) / 256


def reference_scores(sod, p, target):
    """Scores by the module py_sod_metrics."""
    steps = {"s": sod.Smeasure(), "e": sod.Emeasure(), "w": sod.WeightedFmeasure(), "mae": sod.MAE()}
    for one in steps.values():
        one.step(pred=p, gt=target, normalize=False)
    answer = p >= 0.5
    tp, fp, tn, fn = (
        int((a & b).sum()) for a, b in ((answer, target), (answer, ~target), (~answer, ~target), (~answer, target))
    )
    return {
        "s_measure": steps["s"].get_results()["sm"],
        "e_measure": steps["e"].get_results()["em"]["curve"].mean(),
        "weighted_f_measure": steps["w"].get_results()["wfm"],
        "mean_absolute_error": steps["mae"].get_results()["mae"],
        "balanced_error_rate": float(
            sod.BERHandler(with_dynamic=False, with_adaptive=False)(*(np.array([n]) for n in (tp, fp, tn, fn)))[0]
        ),
    }
