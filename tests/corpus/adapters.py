"""Broken and hostile adapter files."""

import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.corpus.cases import Case, Must, Write, cut, flipped, garbled, sparse, written
from tests.corpus.checkpoints import Evaluate, Run, _in_archive, _pickled

_ALL = ("adapter_info", "adapter_verify", "adapter_merge", "adapter_load", "adapter_library")
_HEADER = "topolora_monai"
PROPERTIES: dict[str, Any] = {
    "dataset": "folder", "labels": ["background", "vessel"], "image_size": 64, "crop_size": 32, "in_channels": 3,
    "out_channels": 1, "fit": "pad", "pretrained": False, "protocol": "native", "pixel_values": "linear",
    "percentiles": [1.0, 99.0], "value_range": None, "clahe": False, "despeckle_looks": None, "activation": "sigmoid",
    "multiclass_head": "per_class", "mask_tokens": 10, "threshold": 0.4, "threshold_by": "dice", "temperature": 1.0,
    "validation_dice": 0.5,
}  # fmt: skip
"""What training stores."""


def sound(path: Path, **properties: Any) -> None:
    """An adapter of the smallest network, as training saves it."""
    from topolora_monai.adapters import AdaptationConfig, adapt, save_adapter
    from topolora_monai.networks import build_network

    config = AdaptationConfig.from_dict({"lora": {"targets": ("mlp",), "r": 2, "first_block": 2}})
    save_adapter(adapt(build_network("vit_tiny_test", image_size=64), config), path, **PROPERTIES | properties)


@lru_cache(maxsize=1)
def _parts() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Table of contents, header and data of a sound file."""
    with tempfile.TemporaryDirectory() as folder:
        sound(Path(folder) / "sound.safetensors")
        content = Path(folder, "sound.safetensors").read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    table = json.loads(content[8:end])
    header = json.loads(table.pop("__metadata__")[_HEADER])
    return table, header, content[end:]


def _built(change: Callable[[dict[str, Any], dict[str, Any]], Any] = lambda table, header: None) -> Write:
    """A file whose table of contents and header are changed; the change may give back a header as text."""

    def write(path: Path) -> None:
        table, header, data = _parts()
        table, header = json.loads(json.dumps([table, header]))
        text = change(table, header)
        metadata = {_HEADER: text if isinstance(text, str) else json.dumps(header)}
        table = {"__metadata__": metadata} | table
        _pack(path, json.dumps(table).encode(), data)

    return write


def _pack(path: Path, table: bytes, data: bytes) -> None:
    table += b" " * (-len(table) % 8)
    path.write_bytes(struct.pack("<Q", len(table)) + table + data)


def _raw_table(change: Callable[[bytes], bytes]) -> Write:
    """A file whose table of contents is changed as bytes."""

    def write(path: Path) -> None:
        _built()(path)
        content = path.read_bytes()
        end = 8 + struct.unpack("<Q", content[:8])[0]
        _pack(path, change(content[8:end]), content[end:])

    return write


def _entry(**values: Any) -> Write:
    return _built(lambda table, header: header.update(values) and None)


def _adaptation(**values: Any) -> Write:
    return _built(lambda table, header: header["adaptation"].update(values) and None)


def _lora(**values: Any) -> Write:
    return _built(lambda table, header: header["adaptation"]["lora"].update(values) and None)


def _state(change: Callable[[dict[str, Any]], Any]) -> Write:
    """A file whose tensors are changed, written by safetensors itself."""

    def write(path: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        _built()(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        state = load_file(path)
        change(state)
        save_file(state, path, metadata=metadata)

    return write


def _fill(value: float) -> Write:
    return _state(lambda state: next(iter(state.values())).view(-1)[3:4].fill_(value))


def _cast(name: str) -> Write:
    import torch

    def change(state: dict[str, Any]) -> None:
        key = next(iter(state))
        state[key] = state[key].to(getattr(torch, name))

    return _state(change)


def _case(name: str, write: Write, must: Must = "refuse", ways: tuple[str, ...] = _ALL, short: bool = False,
          suffix: str = ".safetensors", also: tuple[str, ...] = ()) -> Case:  # fmt: skip
    def make(folder: Path) -> Path:
        write(folder / f"broken{suffix}")
        return folder / f"broken{suffix}"

    return Case(f"adapter/{name}", make, ways, must, None, short, also)


_TENSOR_WAYS = _ALL[1:]  # the others look at the header alone
_RUN_WAYS = (*_ALL, "adapter_inference")
_UNPRINTABLE = ("lines", "right-to-left", "escape")
_TEXT_WAYS = ("adapter_info", "adapter_inference", "adapter_release")


def _damaged() -> Iterator[Case]:
    whole = _built()
    yield _case("whole", whole, "read", (*_RUN_WAYS, "adapter_release"), short=True)
    for share in (0.0, 0.001, 0.05, 0.3, 0.9, 0.999):
        yield _case(f"cut-at-{share}", cut(whole, share), short=share in (0.0, 0.3, 0.999))
    for seed in range(8):
        yield _case(f"bit-in-table-{seed}", flipped(whole, seed, (0.0, 0.12)), "survive", short=seed < 2)
    yield _case("noise-in-table", garbled(whole, 1, 0.05, 200))
    yield _case("page", written(b"<html>404 Not Found</html>" * 40))
    yield _case("text", written(b"no tensors in here"))
    yield _case("sparse", sparse(1 << 31), short=True)
    yield _case("rest-behind", lambda path: (whole(path), path.write_bytes(path.read_bytes() + b"rest" * 10)))
    for name, length in {
        "0": 0,
        "1": 1,
        "of-file": 10**6,
        "huge": 2**63,
        "largest": 2**64 - 1,
        "100-mb": 10**8,
    }.items():

        def lie(path: Path, length: int = length) -> None:
            whole(path)
            path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

        yield _case(f"length-{name}", lie, short=name in ("huge", "1"))
    yield _case("pickle", _pickled(Run, 2), short=True)
    yield _case("pickle-protocol-0", _pickled(Evaluate, 0))
    yield _case("pickle-in-archive", _in_archive(Run))
    yield _case("pickle-as-pt", _pickled(Run, 4), suffix=".pt")


def _tables() -> Iterator[Case]:
    def first(**values: Any) -> Write:
        return _built(lambda table, header: next(iter(table.values())).update(values) and None)

    yield _case("table-is-list", lambda path: _pack(path, b"[]", b""))
    yield _case("table-is-number", lambda path: _pack(path, b"7", b""))
    yield _case("table-deep", lambda path: _pack(path, b"[" * 100_000 + b"]" * 100_000, b""), short=True)
    yield _case("table-not-text", lambda path: _pack(path, b"\xff\xfe" * 40, b""))
    yield _case("table-of-50-mb", lambda path: _pack(path, b"{" + b" " * 50_000_000 + b"}", b""))
    yield _case(
        "metadata-number",
        _raw_table(lambda text: text.replace(b'{"__metadata__": {', b'{"__metadata__": {"a": 3, ', 1)),
    )
    yield _case("metadata-missing", _raw_table(lambda text: text.replace(b'topolora_monai"', b'topolora_other"', 1)))
    yield _case("offsets-negative", first(data_offsets=[-4, 4]))
    yield _case("offsets-outside", first(data_offsets=[0, 10**12]), short=True)
    yield _case("offsets-backwards", first(data_offsets=[8, 0]))
    yield _case("offsets-of-text", first(data_offsets=["0", "8"]))
    yield _case("shape-huge", first(shape=[10**9, 10**9]), short=True)
    yield _case("shape-overflow", first(shape=[2**63, 2**63]))
    yield _case("shape-negative", first(shape=[-1, 8]))
    yield _case("shape-of-text", first(shape="8"))
    yield _case("type-unknown", first(dtype="F7"))
    yield _case("type-number", first(dtype=32))
    yield _case("tensors-overlap", _built(lambda table, header: [entry.update(
        data_offsets=next(iter(table.values()))["data_offsets"], shape=next(iter(table.values()))["shape"])
        for entry in table.values()] and None))  # fmt: skip
    yield _case("tensor-twice", _raw_table(_first_name_twice), "refuse or read", short=True)
    yield _case("no-tensors", lambda path: _pack(path, json.dumps({"__metadata__": {
        _HEADER: json.dumps(_parts()[1])}}).encode(), b""), ways=_TENSOR_WAYS)  # fmt: skip


def _first_name_twice(text: bytes) -> bytes:
    """The first tensor listed again, under the same name."""
    table = json.loads(text)
    name = next(key for key in table if key != "__metadata__")
    return text.rstrip()[:-1] + b", " + json.dumps({name: table[name]}).encode()[1:]


def _headers() -> Iterator[Case]:
    yield _case("header-not-json", _built(lambda table, header: "{no json"))
    yield _case("header-list", _built(lambda table, header: "[1, 2]"))
    yield _case("header-null", _built(lambda table, header: "null"))
    yield _case("header-empty", _built(lambda table, header: ""))
    yield _case("header-deep", _built(lambda table, header: "[" * 200_000 + "]" * 200_000), short=True)
    yield _case(
        "header-of-50-mb", _built(lambda table, header: header.update(note="x" * 50_000_000) and None), short=True
    )
    many = {f"note{number}": "x" * 100 for number in range(300_000)}
    yield _case("header-of-300000-entries", _built(lambda table, header: header.update(many) and None))
    yield _case("header-entry-twice", _built(lambda table, header: json.dumps(header)[:-1] + ', "threshold": 0.9}'),
                short=True)  # fmt: skip
    yield _case("header-number-of-a-million-digits", _built(lambda table, header: json.dumps(header)[:-1]
                + ', "image_size": ' + "9" * 1_000_000 + "}"))  # fmt: skip
    for number in (0, 2, -1, 1.5, "1", True, None, [1]):
        yield _case(f"format-{json.dumps(number)}", _entry(format=number))
    for name in ("format", "package_version", "network_name", "base_sha256", "adaptation"):
        yield _case(f"without-{name}", _built(lambda table, header, name=name: header.pop(name) and None))
    wrong: dict[str, tuple[Any, ...]] = {
        "package_version": (7, ["0.1"]),
        "network_name": (7, ["vit_b"]),
        "base_sha256": ("0" * 63, "g" * 64, 7),
        "adaptation": ("lora", [], 7),
        "labels": ("background", [1, 2], {"0": "background"}, [["a"], ["b"]]),
        "image_size": ("64", 0, -64, 64.5, [64], True),
        "crop_size": ("32", -1, 1.5, [32, 32]),
        "in_channels": ("3", 0),
        "out_channels": ("1", 0),
        "mask_tokens": ("10", 0, [10]),
        "multiclass_head": (7, ["per_class"]),
        "fit": (7, ["pad"]),
        "dataset": (7, ["drive"]),
        "threshold": ("0.4", 1.5, -0.1, [0.4], True, float("nan"), float("inf")),
        "threshold_by": (7, ["dice"]),
        "temperature": ("1", 0, -1, float("nan"), float("inf")),
        "pretrained": ("yes", 1),
        "prompts": ("yes", 1),
        "pixel_values": (7, ["linear"]),
        "percentiles": ("1, 99", [1], ["1", "99"], [float("nan"), 99], {"low": 1}),
        "value_range": ("0, 1", [1], ["a", "b"], [0, float("inf")], 7),
        "clahe": ("maybe", 7, [True]),
        "despeckle_looks": ("four", float("nan"), [4]),
        "activation": (7, ["sigmoid"]),
    }
    for name, values in wrong.items():
        for value in values:
            short = value == values[0] and name in ("labels", "percentiles", "pixel_values", "activation")
            yield _case(f"{name}-{json.dumps(value)[:24]}", _entry(**{name: value}), short=short)
    # Of the right type, but nothing can be made of it: told by whatever would use it.
    impossible: dict[str, tuple[Any, ...]] = {
        "network_name": ("vit_x", "", "../../vit_b"), "image_size": (65, 10**9), "in_channels": (10**9,),
        "out_channels": (10**9,), "multiclass_head": ("per_clas",), "fit": ("stretch",),
    }  # fmt: skip
    for name, values in impossible.items():
        for value in values:
            write, ways = _entry(**{name: value}), ("adapter_verify", "adapter_merge", "adapter_library")
            yield _case(f"{name}-{json.dumps(value)}", write, ways=ways, short=value == 10**9)
            bundle = (("adapter_inference",), False, ".safetensors", (name,))  # whose users may set it otherwise
            yield _case(f"{name}-{json.dumps(value)}-in-the-bundle", write, "refuse", *bundle)
    for name, value in {"crop_size": 10**9, "pixel_values": "linaer", "percentiles": [99, 1], "value_range": [1, 0],
                        "despeckle_looks": -4, "activation": "relu"}.items():  # fmt: skip
        yield _case(f"{name}-{json.dumps(value)}", _entry(**{name: value}), ways=("adapter_inference",))
    yield _case(
        "percentiles--5-200", _entry(percentiles=[-5, 200], pixel_values="amplitude"), ways=("adapter_inference",)
    )
    yield _case("threshold_by-accuracy", _entry(threshold_by="accuracy"), "survive", _RUN_WAYS)
    yield _case("crop_size-0", _entry(crop_size=0), "survive", _RUN_WAYS)
    yield _case("labels-empty", _entry(labels=[]), "survive", _RUN_WAYS)
    yield _case("crop_size-1", _entry(crop_size=1), "survive", _RUN_WAYS, short=True)
    yield _case("temperature-1e-300", _entry(temperature=1e-300), "survive", _RUN_WAYS, also=("image picture",))
    yield _case("labels-of-other-number", _entry(labels=["background", "a", "b"]), "refuse", ("adapter_inference",))


def _adaptations() -> Iterator[Case]:
    yield _case(
        "adaptation-empty", _built(lambda table, header: header.update(adaptation={}) and None), ways=_TENSOR_WAYS
    )
    yield _case("adaptation-unknown", _adaptation(lorra={}), ways=_TENSOR_WAYS)
    yield _case("adaptation-preset-number", _adaptation(preset=7), "survive")
    yield _case("adaptation-text", _adaptation(train_decoder="yes"), ways=_TENSOR_WAYS)
    yield _case("adaptation-lora-list", _adaptation(lora=[1]), ways=_TENSOR_WAYS)
    yield _case("adaptation-lora-true", _adaptation(lora=True), ways=_TENSOR_WAYS)
    wrong: dict[str, tuple[Any, ...]] = {
        "rank": (0, -2, "2", 10**9, 1.5, [2]),
        "alpha": ("16", float("nan"), float("inf"), [1]),
        "dropout": (2, -1, "0", float("nan")),
        "targets": ("mlp", [], ["mpl"], [1], 7, [".*"], ["(a+)+$"]),
        "first_block": ("2", 99, -99, 1.5),
    }
    for name, values in wrong.items():
        for value in values:
            must: Must = "survive" if name == "targets" and value == "mlp" else "refuse"
            yield _case(f"lora-{name}-{json.dumps(value)}", _lora(**{name: value}), must, _TENSOR_WAYS,
                        short=name == "rank" and value == 10**9)  # fmt: skip


def _tensors() -> Iterator[Case]:
    def case(name: str, write: Write, short: bool = False) -> Case:
        return _case(f"tensor-{name}", write, "refuse", _TENSOR_WAYS, short)

    for name, value in {"nan": float("nan"), "inf": float("inf"), "minus-inf": -float("inf")}.items():
        yield case(name, _fill(value), short=name == "nan")
    for name in ("bfloat16", "float64", "int32", "int8", "bool", "complex64", "float8_e4m3fn"):  # float16 is read
        yield case(name, _cast(name), short=name == "float64")
    yield case("missing", _state(lambda state: state.pop(next(iter(state)))), short=True)
    yield case("most-missing", _state(lambda state: [state.pop(key) for key in list(state)[1:]]))

    def extra(state: dict[str, Any]) -> None:
        state["mask_decoder.extra"] = next(iter(state.values())).clone()

    yield case("extra", _state(extra))

    def renamed(state: dict[str, Any]) -> None:
        state["../../escape"] = state.pop(next(iter(state)))

    yield case("renamed", _state(renamed))

    def reshaped(state: dict[str, Any]) -> None:
        name = next(name for name, tensor in state.items() if tensor.ndim == 2)
        state[name] = state[name].t().contiguous()

    yield case("transposed", _state(reshaped), short=True)

    def emptied(state: dict[str, Any]) -> None:
        name = next(iter(state))
        state[name] = state[name].new_zeros(0)

    yield case("empty", _state(emptied))


def _hostile_text() -> Iterator[Case]:
    """Names that a configuration would take for code or references: legal, and data all the way."""
    touch = "$__import__('pathlib').Path('code-of-the-file-ran').touch()"
    for name, text in {"code": touch, "dollar": "$vessel", "reference": "@device", "macro": "%configs/other.yaml::a",
                       "placeholder": "__local_refs__", "mark-up": "[bold red]vessel", "path": "../../vessel",
                       "formula": "=1+1", "lines": "a\nb: !!python/object/apply:os.system ['true']",
                       "right-to-left": "\u202evessel", "escape": "\x1b[2Jvessel",
                       "key": "vessel: {a: b}"}.items():  # fmt: skip
        write = _entry(labels=["background", text])
        must: Must = "survive" if name in _UNPRINTABLE else "read"
        yield _case(f"label-{name}", write, must, _TEXT_WAYS, short=name in ("code", "reference"))
    yield _case("label-nul", _entry(labels=["background", "a\0b"]), "survive", _TEXT_WAYS)
    yield _case("label-of-5000-letters", _entry(labels=["background", "a" * 5000]), "survive", _TEXT_WAYS)
    yield _case("label-empty", _entry(labels=["background", ""]), "survive", _TEXT_WAYS)
    for name in ("activation", "pixel_values", "fit", "multiclass_head", "clahe", "despeckle_looks", "value_range",
                 "percentiles"):  # fmt: skip
        yield _case(f"{name}-code", _entry(**{name: touch}), "refuse", _TEXT_WAYS, short=name == "pixel_values")
    for name in ("dataset", "protocol", "threshold_by", "note"):
        yield _case(f"{name}-code", _entry(**{name: touch}), "survive", _TEXT_WAYS)


def cases() -> Iterator[Case]:
    """All of this module."""
    for make in (_damaged, _tables, _headers, _adaptations, _tensors, _hostile_text):
        yield from make()
