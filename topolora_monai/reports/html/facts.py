"""What was trained on what, and how the probabilities did, as lines that compare runs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from topolora_monai.reports.html.runs import Run
from topolora_monai.reports.html.scores import best_value, score_title

_KNOWN_FACTS = {
    "dataset": "Data set",
    "evaluated_on": "Evaluated on",
    "protocol": "Protocol",
    "split_scheme": "Split",
    "network_name": "Network",
    "preset": "Method",
    "seed": "Seed",
    "image_size": "Image size of the network",
    "crop_size": "Crop size",
    "batch_size": "Batch size",
    "learning_rate": "Learning rate",
    "epochs": "Epochs",
    "seconds": "Training time",
    "validation": "Validation",
    "threshold": "Threshold",
    "threshold_by": "Threshold chosen by",
    "temperature": "Temperature",
    "trainable": "Trainable parameters",
    "commit": "Code",
    "hardware": "Hardware",
    "peak_memory_bytes": "Peak memory",
    "command": "Training command",
    "evaluation_command": "Evaluation command",
    "base_sha256": "SHA-256 of the base weights",
}
_NOT_FACTS = ("validation", "test", "split")  # scores have tables of their own, a split is as long as its data set
_CALIBRATION = ("average_precision", "expected_calibration_error", "brier")


class Fact(NamedTuple):
    """One line about the runs: a value for each."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether not all runs agree."""
        return len(set(self.values)) > 1


def run_facts(runs: Sequence[Run]) -> tuple[list[Fact], list[Fact]]:
    """Those with a title of their own, in its order, and all others by their dotted names."""
    flat = [_record(run) for run in runs]
    known = [Fact(title, tuple(_told(key, record) for record in flat)) for key, title in _KNOWN_FACTS.items()]
    keys = dict.fromkeys(key for record in flat for key in record)
    others = [key for key in keys if key.split(".")[0] not in _KNOWN_FACTS]
    return (
        [fact for fact in known if any(fact.values)],
        [Fact(key, tuple(_plain(record.get(key)) for record in flat)) for key in others],
    )


def calibration_facts(runs: Sequence[Run]) -> list[Fact]:
    """Numbers that go with the charts of the probabilities; left out where no run has one."""
    facts = []
    names = dict.fromkeys(name for run in runs for name in run.curves)
    for name in names:
        each = [run.curves.get(name, {}) for run in runs]
        rows = {key: [points.get(key) for points in each] for key in _CALIBRATION}
        rows["risk_coverage_area"] = [points.get("risk_coverage", {}).get("area") for points in each]
        for key, values in rows.items():
            title = f"{score_title(key)}{f' of {name}' if len(names) > 1 else ''} ({best_value(key)} is good)"
            numbers = map(known_number, values)
            facts.append(Fact(title, tuple("" if value is None else f"{value:.4f}" for value in numbers)))
    return [fact for fact in facts if any(fact.values)]


def known_number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _record(run: Run) -> dict[str, Any]:
    """What the run's files say, scores left out but for a line about validation and the threshold of the test."""
    validation = run.record.get("validation")
    numbers = {name: known_number(of) for name, of in validation.items()} if isinstance(validation, dict) else {}
    told = "; ".join(f"{score_title(name)} {value:.4g}" for name, value in numbers.items() if value is not None)
    threshold = known_number(run.record.get("test", {}).get("threshold"))
    flat = _flat({key: value for key, value in run.record.items() if key not in _NOT_FACTS})
    return {"validation": told, "threshold": threshold} | flat


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _told(key: str, record: Mapping[str, Any]) -> str:
    value = record.get(key)
    if value is None:
        parts = {name[len(key) + 1 :]: part for name, part in record.items() if name.startswith(f"{key}.")}
        return "; ".join(f"{name} {_plain(part)}" for name, part in parts.items() if part is not None)
    if key == "seconds":
        hours, minutes = divmod(round(value / 60), 60)
        return (f"{hours} h " if hours else "") + f"{minutes} min" if value >= 60 else f"{value:.0f} s"
    if key == "peak_memory_bytes":
        return f"{value / 1e9:.2f} GB"
    if key == "threshold_by":
        return score_title(str(value))
    return f"{value:,}" if key == "trainable" else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
