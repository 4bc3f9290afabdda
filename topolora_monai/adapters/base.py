"""Which checkpoint an adapter was trained on, from what is written beside and in its file."""

from pathlib import Path

from topolora_monai.adapters.files import read_spec
from topolora_monai.errors import CheckpointError, ConfigError
from topolora_monai.io.json_files import read_json
from topolora_monai.weights import KNOWN_CHECKPOINTS, find_checkpoint

_RUN_FILE = "training.json"


def base_weights(adapter: str | Path) -> str | None:
    """The base checkpoint to use with an adapter when none is given.

    Args:
        adapter: an adapter file.

    Returns:
        The file that its run started from, if the run's record lies beside the adapter and the file is still there;
        else the name of the published checkpoint that it is for, if that has been fetched; else None, as for an adapter
        that was trained on random weights. Whether the weights fit is checked when the adapter is loaded.

    Raises:
        AdapterFileError: if the adapter is damaged.
        DataError: if the run's record is.
    """
    spec = read_spec(adapter)
    record = Path(adapter).with_name(_RUN_FILE)
    if record.is_file():
        used = read_json(record, "give --weights").get("weights")
        if isinstance(used, str) and Path(used).is_file():
            return used
    if spec.checkpoint not in KNOWN_CHECKPOINTS:
        return None
    try:
        find_checkpoint(spec.checkpoint)
    except (CheckpointError, ConfigError):  # not fetched, or there is no cache
        return None
    return spec.checkpoint
