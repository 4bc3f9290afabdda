"""Which checkpoint an adapter was trained on, from what is written beside and in its file."""

import logging
from pathlib import Path

from topolora_monai.adapters.files import read_spec
from topolora_monai.adapters.released import find_adapter, is_released
from topolora_monai.errors import CheckpointError, ConfigError, TopoLoRAError, first_line
from topolora_monai.io.json_files import read_json
from topolora_monai.weights import KNOWN_CHECKPOINTS, fetch_checkpoint, find_checkpoint

_logger = logging.getLogger(__name__)

_RUN_FILE = "training.json"


def base_weights(adapter: str | Path) -> str | None:
    """The base checkpoint to use with an adapter when none is given.

    Args:
        adapter: an adapter file, or the name of one that comes with the package.

    Returns:
        The file that its run started from, if the run's record lies beside the adapter and the file is still there;
        else the name of the published checkpoint that it is for, if that has been fetched; else None, as for an adapter
        that was trained on random weights. For one that comes with the package it is downloaded. Whether the weights
        fit is checked when the adapter is loaded.

    Raises:
        AdapterFileError: if the adapter is damaged.
        DataError: if the run's record is.
        CheckpointError: if the base of one that comes with the package is not here and cannot be downloaded.
    """
    path = find_adapter(adapter)
    spec = read_spec(path)
    record = path.with_name(_RUN_FILE)
    if record.is_file():
        used = read_json(record, "give --weights").get("weights")
        if isinstance(used, str) and Path(used).is_file():
            return used
    if spec.checkpoint not in KNOWN_CHECKPOINTS:
        return None
    try:
        find_checkpoint(spec.checkpoint)
    except (CheckpointError, ConfigError):  # not fetched, or there is no cache
        if not is_released(path):
            return None
        _fetch(spec.checkpoint, adapter)
    return spec.checkpoint


def _fetch(checkpoint: str, adapter: str | Path) -> None:
    size = KNOWN_CHECKPOINTS[checkpoint].size or 0
    _logger.info("adapter %s needs %s, %.0f MB, which is downloaded once", adapter, checkpoint, size / 1e6)
    try:
        fetch_checkpoint(checkpoint)
    except TopoLoRAError as error:
        raise CheckpointError(
            f"adapter {adapter} needs the base checkpoint {checkpoint}, which is neither here nor can it be downloaded",
            found=first_line(error),
            hint=f"run `topolora weights fetch {checkpoint}` where there is a network, or give --weights its path",
        ) from error
