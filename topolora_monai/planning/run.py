"""The plan of a run: measured when it is first asked for, kept in the run's folder, and read there when it goes on."""

import dataclasses
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from topolora_monai.data.items import Item
from topolora_monai.data.registry import SegmentationData
from topolora_monai.engines.checkpoint import LAST_STATE
from topolora_monai.errors import unknown_choice
from topolora_monai.io import LabelValues
from topolora_monai.parsing import parse_bool
from topolora_monai.planning.files import HEADING, read_plan, write_plan
from topolora_monai.planning.fingerprint import Fingerprint, fingerprint
from topolora_monai.planning.plan import OVERLAP, PLAN_IDS, SAMPLINGS, SCALE_REASONS, Plan, fit_plan

_logger = logging.getLogger(__name__)

PLAN_FILE = "plan.yaml"
"""Name of the plan in a run's folder."""


class RunPlan:
    """What a configuration takes its defaults from.

    Nothing is measured before a value is asked for: a configuration that gives them all takes no time. Where the folder
    holds a state to go on from, the run's own plan is read instead, whatever the data are now.

    Args:
        data: to be trained on.
        network_name: that is trained.
        items: of the training split; the data set's own where they are None.
        classes: names, the background first; likewise.
        label_values: of its masks; likewise.
        output_dir: folder of the run; None for none.
        resume: whether its last state is taken up.

    Raises:
        DataError, ConfigError: as :func:`~topolora_monai.planning.fingerprint`,
            :func:`~topolora_monai.planning.fit_plan` and :func:`~topolora_monai.planning.read_plan`, once a value is
            asked for.

    Example:
        >>> from topolora_monai.data import open_dataset
        >>> plan = RunPlan(open_dataset("synthetic_vessels"), "vit_tiny_test")
        >>> plan.overlap  # the same in every plan
        0.25
    """

    def __init__(
        self,
        data: SegmentationData,
        network_name: str,
        items: Sequence[Item] | None = None,
        classes: Sequence[str] | None = None,
        label_values: LabelValues | None = None,
        output_dir: str | Path | None = None,
        resume: bool = True,
    ) -> None:
        self.data = data
        self.network_name = network_name
        self.items = items
        self.classes = classes
        self.label_values = label_values
        self._file = None if output_dir is None else Path(output_dir) / PLAN_FILE
        goes_on = self._file is not None and parse_bool(resume) and (self._file.parent / LAST_STATE).is_file()
        self._kept = goes_on and self._file is not None and self._file.is_file()
        self._in_force: Plan | None = None

    image_size = property(lambda self: self._value("image_size"), doc="Of the network's input.")
    crop_size = property(lambda self: self._value("crop_size"), doc="Of crops and tiles.")
    sampling = property(lambda self: self._value("sampling"), doc="Where crops are cut.")
    batch_size = property(lambda self: self._value("batch_size"), doc="Crops in a step.")
    epochs = property(lambda self: self._value("epochs"), doc="Passes over the training images.")
    crops_per_image = property(lambda self: self._value("crops_per_image"), doc="Of each image in an epoch.")
    learning_rate = property(lambda self: self._value("learning_rate"), doc="The highest.")
    view_diameter = property(lambda self: self._scale("view_diameter"), doc="Of the fields of view.")
    thickness = property(lambda self: self._scale("thickness"), doc="Along the skeletons.")

    @property
    def overlap(self) -> float:
        """Of tiles."""
        return float(self._read.get("overlap", OVERLAP))

    def crop_size_at(self, image_size: int) -> int:
        """Side of crops that keeps the plan's zoom at another input size than its own."""
        if image_size == self.image_size:
            return int(self.crop_size)
        return max(1, round(int(self.crop_size) * image_size / int(self.image_size)))

    def store(self, **values: Any) -> None:
        """Keep what the run is trained with in its folder, unless it goes on by the plan there.

        Args:
            **values: by the names of a :class:`Plan`.
        """
        planned = self.__dict__.get("_measured")
        reasons = dict(planned.reasons if planned else SCALE_REASONS)
        for name, value in values.items():
            if self._read.get(name) == value:
                reasons[name] = "the run's own plan"
            elif planned and name == "crop_size" and value == self.crop_size_at(values["image_size"]):
                reasons[name] += f" (planned for image_size {planned.image_size}; the zoom is kept)" * (
                    values["image_size"] != planned.image_size
                )
            elif getattr(self.__dict__.get("_figures") if name in SCALE_REASONS else planned, name, None) != value:
                reasons[name] = "given to the run"
        self._in_force = Plan(
            network_name=self.network_name, reasons=reasons, found=planned.found if planned else (), **values
        )
        if self._file is not None and not self._kept:
            write_plan(self._in_force, self._file)
            _logger.info(
                "crops of %d px at %d px, %s; why stands in %s",
                *(self._in_force.crop_size, self._in_force.image_size, self._in_force.sampling, self._file),
            )

    def record(self) -> dict[str, Any] | None:
        """What was stored, for the record of the training."""
        return None if self._in_force is None else dataclasses.asdict(self._in_force)

    @cached_property
    def _figures(self) -> Fingerprint:
        return fingerprint(self.data, items=self.items, classes=self.classes, label_values=self.label_values)

    @cached_property
    def _measured(self) -> Plan:
        return fit_plan(self._figures, self.network_name)

    @cached_property
    def _read(self) -> Mapping[str, Any]:
        if not self._kept or self._file is None:
            return {}
        return {PLAN_IDS[id_]: value for id_, value in read_plan(self._file, self.network_name).items()}

    def _scale(self, name: str) -> float | None:
        """Of the images alone, whatever a plan for them would be."""
        scale: float | None = self._read[name] if name in self._read else getattr(self._figures, name)
        return scale

    def _value(self, name: str) -> Any:
        return self._read[name] if name in self._read else getattr(self._measured, name)


def check_plans(network_name: str) -> None:
    """Check the plans among the files of the configuration that calls this, so that an error can name the line.

    A plan is what :func:`~topolora_monai.planning.write_plan` wrote, or is named ``plan.yaml``.

    Args:
        network_name: that is trained.

    Raises:
        ConfigError: as :func:`~topolora_monai.planning.read_plan`.
    """
    for path in map(Path, _config_files()):
        if path.is_file() and (path.name == PLAN_FILE or path.read_bytes().startswith(HEADING.encode())):
            read_plan(path, network_name)


def check_sampling(name: str) -> None:
    """Where crops are cut: ``"uniform"`` or ``"foreground"``.

    Raises:
        ConfigError: for another name.

    Example:
        >>> check_sampling("uniform")
    """
    if name not in SAMPLINGS:
        raise unknown_choice("sampling", name, SAMPLINGS)


def _config_files() -> list[str]:
    """MONAI hands the names of a configuration's files to nobody, so they are looked for among the callers."""
    for frame, _ in traceback.walk_stack(sys._getframe()):
        files = frame.f_locals.get("config_file")
        if files and str(frame.f_globals.get("__name__", "")).startswith("monai.bundle"):
            return [str(file) for file in ([files] if isinstance(files, str | Path) else files)]
    return []
