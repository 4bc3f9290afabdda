"""Pretrained encoders from a file: safe reading, strict loading."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from topolora_monai.errors import CheckpointError, ConfigError, first_line
from topolora_monai.weights import read_checkpoint

IMAGENET = "imagenet"
"""In place of a path: the weights that the encoder's library publishes, from its cache or its server."""


def load_encoder(encoder: nn.Module, path: str | Path) -> None:
    """Load an encoder of three channels from a file of its own, or of a network that holds one under a common prefix.

    Raises:
        CheckpointError: if the file cannot be read or lacks a tensor of the encoder.
    """
    state, own = read_checkpoint(path), encoder.state_dict()
    first = next(iter(own))
    ends = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    prefix = min(ends, key=len, default="")
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # absent from old files
    missing = sorted(own.keys() - counters - {name.removeprefix(prefix) for name in state if name.startswith(prefix)})
    found = {name: state[prefix + name] for name in own if prefix + name in state}
    reshaped = sorted(name for name, tensor in found.items() if tensor.shape != own[name].shape)
    if missing or reshaped:
        raise another_encoder(path, len(own), missing, reshaped)
    nn.Module.load_state_dict(encoder, own | found)  # the library's own would pop names it does not find


def another_encoder(path: str | Path, wanted: int, missing: list[str], reshaped: list[str]) -> CheckpointError:
    """Error for a file that does not hold the encoder's tensors."""
    return CheckpointError(
        "file does not hold this network's encoder",
        path=path,
        expected=f"{wanted} tensors",
        found=f"{len(missing)} missing {missing[:3]}; {len(reshaped)} of another shape {reshaped[:3]}",
        hint="give the ImageNet weights of the encoder in the network's name",
    )


@contextmanager
def fetching(encoder_name: str) -> Iterator[None]:
    """Explain why an encoder's published weights cannot be had, by a :class:`ConfigError`."""
    try:
        yield
    except OSError as error:  # also what huggingface_hub raises without a connection
        raise ConfigError(
            f"pretrained weights of {encoder_name} are neither in the cache nor within reach",
            found=first_line(error),
            hint="give the path of a downloaded file instead of imagenet, or null for random initialisation",
        ) from error
