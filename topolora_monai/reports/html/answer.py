"""What a report opens with: its answer in a sentence, and the images that show it."""

from collections.abc import Mapping, Sequence
from typing import Any

from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.scores import COUNTS, lower_is_better, score_title, short_score, worst_score
from topolora_monai.reports.html.statistics import Comparison, Difference, Interval

KEY_FIGURES = {
    "dice": "how much of the areas agrees; 1 at best",
    "cldice": "how much of the centrelines agrees; 1 at best",
    "betti_0_error": "parts too many or too few in an image; 0 at best",
}
"""The scores that are shown first, and what they say in words."""

_CHANCE = 0.05
_FEW = 6  # of fewer pairs the signed-rank test's p-value is above that, whatever they are


def run_sentence(run: Run, means: Mapping[str, Interval]) -> str:
    """What was trained on what, how well it does, and what goes wrong most.

    The means over its images are of its scores and of what :data:`COUNTS` names, as far as they are known.
    """
    made, data = _made(run), _data(run.record.get("evaluated_on", {}))
    elsewhere = f" of {data}" if data and data != _data(run.record) else ""
    if not run.scores:
        return f"{made} has no score on its {_counted(len(run.names), 'test image')}{elsewhere}."
    score = worst_score(list(run.scores))
    of = means[score]
    told = [_interval(of)] * (of.count > 1) + [f"mean of {len(run.classes)} classes"] * (len(run.classes) > 1)
    value = f"{score_title(score)} {short_score(of.mean)}" + (f" ({'; '.join(told)})" if told else "")
    some = f" of {len(run.names)}" if of.count < len(run.names) else ""
    where = f"{'average over ' * (of.count > 1)}{'only ' * (of.count < _FEW)}{_counted(of.count, 'test image', some)}"
    return "; ".join([f"{made} reaches {value} on {where}{elsewhere}", *_wrong(run, means)]) + "."


def comparison_sentence(one: Comparison) -> str:
    """Which of two runs is better by the score that says most, and whether that is more than chance."""
    found = {difference.score: difference for difference in one.differences if difference.difference.count}
    if not found:
        return f"{one.second} and {one.first} cannot be compared: no image has a score of both."
    main = found[worst_score(list(found))]
    change, word = main.difference, _verdict(main)
    sure = f", {_interval(change, '+')}" if change.count > 1 else ""
    lead = f"{one.second} is {word} than {one.first}"
    test = f"{'more than' if word else 'which may be'} chance by the paired test (p {main.p_value:.2g})"
    if not word:
        lead = f"Whether {one.second} or {one.first} is better is open"
    if main.better + main.worse < _FEW:
        test = "too few images differ for the paired test to tell"
    verdicts = {score: _verdict(found[score]) for score in KEY_FIGURES if score in found}
    others = [f"; by {score_title(score)} {one.second} is {of}" for score, of in verdicts.items() if of and of != word]
    return (
        f"{lead}: {score_title(main.score)} {short_score(main.second)} against {short_score(main.first)} (difference"
        f" {short_score(change.mean, '+')}{sure}) on {_counted(change.count, 'test image')} that both scored, {test}"
        f"{''.join(others)}."
    )


def telling_images(worst_first: Sequence[int]) -> list[tuple[str, int]]:
    """Which images of a run to show at once, each with what it is.

    Example:
        >>> telling_images([4, 0, 3, 2, 1])
        [('Best', 1), ('Typical (median)', 3), ('Worst', 4)]
    """
    if len(worst_first) < 2:
        return [("The only one", number) for number in worst_first]
    middle = [("Typical (median)", worst_first[len(worst_first) // 2])] if len(worst_first) > 2 else []
    return [("Best", worst_first[-1]), *middle, ("Worst", worst_first[0])]


def _made(run: Run) -> str:
    """The network, what trained in it, and on what, as far as it is known."""
    network, preset = run.record.get("network_name") or "This model", run.record.get("preset")
    how = {None: "trained", "full": "trained in full"}.get(preset, f"adapted by {preset}")
    number = run.record.get("images", {}).get("training")
    data = " of ".join([*([_counted(number, "image")] if number else []), *filter(None, [_data(run.record)])])
    names = [f"“{name}”" for name in run.classes if name != "foreground"]
    find = f" to find {' and '.join(names) if len(names) < 3 else f'{len(names)} classes'}" if names else ""
    return f"{network}, {how}{f' on {data}' if data else ''}{find}," if data or find else network


def _data(described: Mapping[str, Any]) -> str:
    name = {"folder": "a folder"}.get(described.get("dataset", ""), described.get("dataset", ""))
    return f"a part of {name} ({described['partial']})" if described.get("partial") else name


def _wrong(run: Run, means: Mapping[str, Interval]) -> list[str]:
    counts = {name: means[name].mean for name in COUNTS if name in means}
    classes = {name: means[f"dice_{name}"].mean for name in run.classes if f"dice_{name}" in means}
    told = []
    if counts:
        most = max(counts, key=counts.__getitem__)
        often = f"what goes wrong most is {score_title(most).lower()}, {short_score(counts[most])} an image"
        told.append(often if counts[most] else "no link is broken or false, and no part is false")
    if len(classes) > 1:
        weakest = min(classes, key=classes.__getitem__)
        told.append(f"the weakest class is “{weakest}”, Dice {short_score(classes[weakest])}")
    return told


def _verdict(difference: Difference) -> str:
    """``"better"`` or ``"worse"`` where the second run is that for more than chance."""
    if difference.better + difference.worse < _FEW or difference.p_value >= _CHANCE:
        return ""
    return "better" if (difference.difference.mean < 0) == lower_is_better(difference.score) else "worse"


def _interval(of: Interval, sign: str = "") -> str:
    return f"95 % interval {short_score(of.low, sign)} to {short_score(of.high, sign)}"


def _counted(count: int, what: str, some: str = "") -> str:
    return f"{count:,}{some} {what}{'s' * (count != 1 or bool(some))}"
