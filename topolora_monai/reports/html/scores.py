"""What scores are called in a report, which way is better, and how their values are written."""

import math
import re
from collections.abc import Sequence

COUNTS = ("broken", "false_links", "false_parts")
"""Columns of the report's own counts: of broken and false connections, and of parts that touch nothing true."""

_TITLES = {
    "dice": "Dice",
    "cldice": "clDice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "auc": "AUC",
    "threshold": "Threshold",
    "dice_at_half": "Dice at 0.5",
    "average_precision": "Average precision",
    "boundary_f1": "Boundary F1",
    "s_measure": "S-measure",
    "e_measure": "E-measure",
    "weighted_f": "Weighted F-measure",
}
_LOWER_TITLES = {
    "betti_0_error": "Betti-0 error",
    "betti_1_error": "Betti-1 error",
    "betti_0_patch_error": "Betti-0 error in patches",
    "betti_1_patch_error": "Betti-1 error in patches",
    "betti_matching_error": "Betti matching error",
    "hd95": "HD95",
    "assd": "ASSD",
    "mae": "MAE",
    "ber": "BER",
    "ece": "Calibration error",
    "expected_calibration_error": "Expected calibration error",
    "brier": "Brier score",
    "risk_coverage_area": "Area under risk-coverage",
    "broken": "Broken links",
    "false_links": "False links",
    "false_parts": "False parts",
}
_KNOWN = _TITLES | _LOWER_TITLES
_FIRST = (
    *("dice", "cldice", "precision", "recall", "betti_0_error", "betti_1_error", "boundary_f1", "hd95"),
    *COUNTS,
)
_FEW = 9  # columns that fit beside a name without choosing
_LOWER_WORDS = re.compile(r"(^|_)(betti\w*|hausdorff|error|errors|breaks|loss)(_|$)")


def score_title(score: str) -> str:
    """What people call a score; that of one class is named after it.

    Example:
        >>> score_title("betti_0_error"), score_title("dice_cup"), score_title("my_score")
        ('Betti-0 error', 'Dice, cup', 'my score')
    """
    known, of_class = _parts(score)
    if known is None:
        return score.replace("_", " ")
    return _KNOWN[known] + (f", {of_class}" if of_class else "")


def lower_is_better(score: str) -> bool:
    """Whether a score counts errors; one that is not known goes by the words in its name.

    Example:
        >>> lower_is_better("betti_0_error"), lower_is_better("cldice"), lower_is_better("dice_error_bars")
        (True, False, False)
    """
    known, _ = _parts(score)
    return bool(_LOWER_WORDS.search(score)) if known is None else known in _LOWER_TITLES


def best_value(score: str) -> str:
    """The better end of a score's scale, in a word: ``"low"`` or ``"high"``."""
    return "low" if lower_is_better(score) else "high"


def first_shown(scores: Sequence[str]) -> Sequence[str]:
    """Those to show before anyone chooses: all of a few, the most telling of many.

    Example:
        >>> first_shown(["dice", "brier"])
        ['dice', 'brier']
    """
    if len([score for score in scores if score not in COUNTS]) <= _FEW:
        return scores
    return [score for score in scores if score in _FIRST] or scores[:_FEW]


def worst_score(scores: Sequence[str]) -> str:
    """The score that says most about thin structures, of those there are.

    Example:
        >>> worst_score(["dice", "iou", "cldice"])
        'cldice'
    """
    return next((score for score in ("cldice", "dice", *scores) if score in scores), "")


def show_score(value: float | None, whole: bool = False) -> str:
    """Four decimals, none of whole numbers, a dash where there is no value.

    Example:
        >>> show_score(0.5), show_score(3.0, whole=True)
        ('0.5000', '3')
    """
    if value is None or math.isnan(value):
        return "\u2013"
    return f"{value:.0f}" if whole else f"{value:.4f}"


def short_score(value: float, sign: str = "") -> str:
    """Enough digits for a sentence; with ``sign="+"`` of a difference.

    Example:
        >>> short_score(0.81234), short_score(12.345), short_score(0.02, "+")
        ('0.812', '12.3', '+0.020')
    """
    digits = 3 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    return show_score(None) if math.isnan(value) else f"{value:{sign},.{digits}f}"


def _parts(score: str) -> tuple[str | None, str]:
    """The known score a name begins with, the longest, and the class after it."""
    if score in _KNOWN:
        return score, ""
    fitting = [known for known in _KNOWN if score.startswith(f"{known}_")]
    known = max(fitting, key=len, default=None)
    return known, score[len(known) + 1 :] if known else ""
