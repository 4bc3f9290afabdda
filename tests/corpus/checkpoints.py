"""Checkpoints that run code when they are unpickled, are damaged, or grow."""

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.corpus.cases import Case, Must, Write, cut, flipped, garbled, sparse, written
from tests.corpus.images import deflated_zeros

_WAYS = ("read_base", "read_merged_model", "resume_run")
SENTINEL = "code-of-the-file-ran"
"""Name of the file that hostile code makes beside the input."""


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Run(Touch):
    """The same by a shell."""

    def __reduce__(self):
        import os

        return os.system, (f"touch '{self.path}'",)


class Evaluate(Touch):
    """The same by a text that is evaluated."""

    def __reduce__(self):
        return eval, (f"open({self.path!r}, 'w')",)


def _pickled(kind: type[Touch], protocol: int) -> Write:
    return lambda path: path.write_bytes(pickle.dumps(kind(path.parent / SENTINEL), protocol))


def _in_archive(kind: type[Touch], protocol: int = 2) -> Write:
    """As torch.save writes it, with hostile code in the place of the tensors' table."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model/data.pkl", pickle.dumps({"model": kind(path.parent / SENTINEL)}, protocol))
            file.writestr("model/version", "3\n")

    return write


def _opcode(path: Path) -> None:
    """GLOBAL and REDUCE behind a sound dictionary, in text opcodes."""
    target = str(path.parent / SENTINEL)
    path.write_bytes(b"(dp0\nS'a'\nI1\nscposix\nsystem\n(S" + repr(f"touch '{target}'").encode() + b"\ntR0.")


def _built_in_state(path: Path) -> None:
    """Code behind BUILD, the other opcode that runs what a file names."""

    class Holder:
        def __reduce__(self):
            return dict, (), {"inside": Touch(path.parent / SENTINEL)}

    path.write_bytes(pickle.dumps(Holder(), 2))


def _huge_tensor(path: Path) -> None:
    """A tensor whose storage is said to be of a terabyte."""
    import torch

    torch.save({"weight": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            grown = data.replace(b"K\x04tq", b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"tq")
            file.writestr(name, grown if name.endswith("data.pkl") else data)


def _legacy_numpy(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": np.zeros(3)}, 2))


def _sound(path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(1000)}, path)


def _torch(value: object) -> Write:
    def write(path: Path) -> None:
        import torch

        torch.save(value, path)

    return write


def _script(path: Path) -> None:
    """TorchScript, which has code of its own."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/data.pkl", pickle.dumps({"a": 1}, 2))
        file.writestr("model/constants.pkl", pickle.dumps((), 2))
        file.writestr("model/code/__torch__.py", "import os\nos.system('true')\n")
        file.writestr("model/version", "3\n")


def _bomb(path: Path) -> None:
    """As torch.save writes it, but with a table of tensors that grows to 8 gigabytes."""
    body = deflated_zeros(8 << 30)[2:-4]
    name = b"model/data.pkl"
    size = struct.pack("<QQ", 8 << 30, len(body))
    extra = struct.pack("<HH", 1, 16) + size
    facts = struct.pack("<HHHHHIIIHH", 45, 0, 8, 0, 33, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(extra))
    local = b"PK\3\4" + facts + name + extra + body
    central = b"PK\1\2" + struct.pack("<H", 45) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name + extra
    end = struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    path.write_bytes(local + central + b"PK\5\6" + end)


def _case(name: str, write: Write, must: Must = "refuse", suffix: str = ".pt", short: bool = False) -> Case:
    def make(folder: Path) -> Path:
        write(folder / f"broken{suffix}")
        return folder / f"broken{suffix}"

    return Case(f"checkpoint/{name}", make, _WAYS, must, None, short)


def cases() -> Iterator[Case]:
    """All of this module."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for kind in (Touch, Run, Evaluate):
            name = f"{kind.__name__.lower()}-protocol-{protocol}"
            short = kind is Run and protocol in (0, 4)
            yield _case(name, _pickled(kind, protocol), short=short)
            yield _case(f"{name}-in-archive", _in_archive(kind, protocol), short=short and protocol == 4)
    yield _case("as-safetensors", _pickled(Run, 2), suffix=".safetensors", short=True)
    yield _case("archive-as-safetensors", _in_archive(Run), suffix=".safetensors")
    yield _case("text-opcodes", _opcode)
    yield _case("built-in-state", _built_in_state, short=True)
    yield _case("numpy", _legacy_numpy)
    yield _case("script", _script)
    yield _case("huge-tensor", _huge_tensor, short=True)
    yield _case("bomb", _bomb)
    yield _case("empty", written(b""), short=True)
    yield _case("sparse", sparse(1 << 38))
    yield _case("page", written(b"<html>404</html>" * 50))
    for share in (0.1, 0.5, 0.95):
        yield _case(f"cut-at-{share}", cut(_sound, share))
    yield _case("noise", garbled(_sound, 3, 0.1))
    for seed in range(3):
        yield _case(f"bit-{seed}", flipped(_sound, seed), "survive")
    for name, value in {"none": None, "number": 3, "text": "weights", "list": [1], "empty-object": {},
                        "of-numbers": {"a": 1}, "of-nested": {"a": {"b": {"c": 1}}},
                        "keys-of-numbers": {1: 2}}.items():  # fmt: skip
        yield _case(f"value-{name}", _torch(value), short=name == "number")
    depth = pickletools.optimize(pickle.dumps([], 2))[:-1]
    yield _case("deep", written(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."))
    yield _case("memo-bomb", written(depth + b"2" * 1_000_000 + b"."))
    yield _case("stream-of-nothing", written(io.BytesIO(b"\x80\x02" + b"N" * 5_000_000 + b".").getvalue()))
