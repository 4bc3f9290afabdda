"""What is computed again and what is not."""

import dataclasses
import functools
import importlib
import os
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd, RandScaleIntensityd, Resized, SpatialPadd, Transform

from tests.processes import run_code
from topolora_monai.data import caching
from topolora_monai.data.caching import cached, content_key
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.transforms import GreenClahed, IntensityScaling, LoadItem, RefinedLeed

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def forget_calls():
    CALLS.clear()


@dataclasses.dataclass(frozen=True)
class Gain:
    factor: float = 1.0


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held


class Read(Transform):
    """Reads numbers from the file named by ``image`` and counts that it did."""

    def __init__(self, gain=1.0, options=None):
        self.gain = gain
        self.options = options

    def __call__(self, data):
        numbers = [float(number) for number in Path(data["image"]).read_text().split()]
        CALLS.append(data["name"])
        factor = self.gain.factor if isinstance(self.gain, Gain) else self.gain
        return {**data, "image": torch.tensor(numbers)[None] * factor}


class ReadAgain(Read):
    pass


class Add(Transform):
    def __init__(self, amount):
        self.amount = amount

    def __call__(self, data):
        return {**data, "image": data["image"] + self.amount}


class Spring(Transform):
    """Leaves an object whose pickle runs code."""

    def __call__(self, data):
        return {**data, "name": Trap(data["name"])}


@pytest.fixture
def items(tmp_path):
    found = []
    for index in range(4):
        path = tmp_path / f"{index}.txt"
        path.write_text(f"{index} 2 3")
        found.append({"name": f"item {index}", "image": str(path), "slice": index})
    return found


@pytest.fixture
def computed(items, tmp_path):
    """How many items a data set over the common folder has to compute."""

    def count(*transforms, data=items) -> int:
        CALLS.clear()
        dataset = cached(data, Compose(transforms), tmp_path / "cache")
        for index in range(len(dataset)):
            dataset[index]
        return len(CALLS)

    return count


def random_scale(prob=1.0):
    return RandScaleIntensityd("image", factors=0.5, prob=prob)


@pytest.fixture(scope="module")
def another_process() -> list[str]:
    """Lines printed by code at a prompt, where texts have other hashes."""
    code = (
        "import sys; del sys.modules['__main__']\n"
        "from topolora_monai.data.caching import content_key\n"
        "from topolora_monai.transforms import LoadItem\n"
        "print(content_key([{'y': 1.5, 'x': None}, LoadItem(label_values={1: 1, 0: 0})]))\n"
        "class Step: pass\n"
        "try: print(content_key(Step()))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    return run_code(code).stdout.split()


class TestInMemory:
    def test_everything_before_the_first_random_transform_is_done_once(self, items):
        data = cached(items, [Read(), random_scale(), Add(100)])
        assert len(CALLS) == 4
        values = [data[1]["image"][0, 1].item() for _ in range(5)]
        assert len(CALLS) == 4
        assert len(set(values)) == 5
        assert min(values) > 100

    def test_equal_items_share_one_entry(self, items):
        repeated = [dict(reversed(item.items())) for item in items]
        data = cached(items * 3 + repeated, [Read(), random_scale(prob=0)])
        assert sorted(CALLS) == [f"item {index}" for index in range(4)]
        assert [data[index]["name"] for index in range(16)] == [f"item {index}" for index in range(4)] * 4
        assert len(CALLS) == 4

    def test_rate_is_of_distinct_items(self, items):
        data = cached(items * 2, [Read()], cache_rate=0.5)
        assert len(CALLS) == 2
        for index in range(8):
            data[index]
        assert len(CALLS) == 2 + 4

    @pytest.mark.parametrize("rate", [-0.1, 1.5])
    def test_impossible_rates_are_refused(self, items, rate):
        with pytest.raises(ConfigError, match="cache_rate"):
            cached(items, [Read()], cache_rate=rate)


class TestOnDisk:
    def test_nothing_is_computed_twice(self, computed):
        assert computed(Read()) == 4
        assert computed(Read()) == 0

    def test_what_is_read_later_equals_what_was_made(self, items, tmp_path):
        made, later = (cached(items, [Read(2.0)], tmp_path / "cache")[3] for _ in range(2))
        assert CALLS == ["item 3"]
        assert made.keys() == later.keys() == {"name", "image", "slice"}
        for found in (made, later):
            assert found["image"].tolist() == [[6.0, 4.0, 6.0]]
            assert (found["slice"], found["name"]) == (3, "item 3")

    def test_random_transforms_stay_random(self, items, tmp_path):
        data = cached(items, [Read(), random_scale()], tmp_path / "cache")
        assert len({data[1]["image"][0, 1].item() for _ in range(5)}) == 5

    def test_items_in_another_order_of_keys_share_an_entry(self, computed, items):
        assert computed(Read(), data=items * 2) == 4
        assert computed(Read(), data=[dict(reversed(item.items())) for item in items]) == 0

    def test_tensors_with_a_record_of_monais_transforms_come_back_with_it(self, items, tmp_path):
        pad = SpatialPadd("image", spatial_size=[5])
        made, later = (cached(items, [Read(), pad], tmp_path / "cache")[0]["image"] for _ in range(2))
        assert isinstance(later, MetaTensor)
        assert torch.equal(made, later)
        assert pad.inverse({"image": later})["image"].tolist() == [[0, 2, 3]]

    def test_other_items_delete_no_entry(self, items, tmp_path):
        data = cached(items, [Read()], tmp_path / "cache")
        data[0]
        data.set_data(items[::-1])
        assert data[3]["name"] == "item 0"
        assert CALLS == ["item 0"]

    def test_rate_belongs_to_memory(self, items, tmp_path):
        with pytest.raises(ConfigError, match="cache_rate"):
            cached(items, [Read()], tmp_path, cache_rate=0.5)


class TestWhatMakesAnotherEntry:
    @pytest.mark.parametrize(
        "other",
        [
            Read(3.0),
            Read(options={"a": [1, 2]}),
            Read(options=[1]),
            Read(Gain(1.0)),
            ReadAgain(),
        ],
    )
    def test_class_or_argument_of_a_deterministic_transform(self, computed, other):
        computed(Read())
        assert computed(other) == 4
        assert computed(other) == 0

    @pytest.mark.parametrize(
        ("one", "another"),
        [
            (Gain(1.0), Gain(2.0)),
            ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
            ([1, 2], [2, 1]),
            (1, True),
            (1, 1.0),
            (1, "1"),
            (None, "None"),
            ({1: 0}, {"1": 0}),
            (Slotted(1), Slotted(2)),
            (np.float32, np.float64),
            (torch.float32, torch.float64),
        ],
    )
    def test_what_an_argument_holds(self, one, another):
        assert content_key(Read(options=one)) != content_key(Read(options=another))
        assert content_key(Read(options=one)) == content_key(Read(options=one))

    def test_arguments_of_the_bundles_transforms(self):
        def build(low=-25, label_value=255, clip_limit=2.0, looks=4, size=64):
            keys = ["image", "label", "fov"]
            scaling = IntensityScaling("db", percentiles=[1, 99], value_range=[low, 0])
            return [
                LoadItem(3, scaling, {0: 0, label_value: 1}),
                GreenClahed("image", clip_limit, mask_key="fov"),
                RefinedLeed("image", looks=looks, pixel_values="db", db_range="limits", mask_key="fov"),
                SpatialPadd(keys, spatial_size=[64, 64]),
                Resized(keys, [size, 64], mode=["bilinear", "nearest-exact", "nearest-exact"]),
            ]

        key = content_key(build())
        assert content_key(build()) == key
        others = [{"low": -30}, {"label_value": 1}, {"clip_limit": 3.0}, {"looks": 5}, {"size": 32}]
        assert len({key, *(content_key(build(**other)) for other in others)}) == 6

    def test_order(self, computed):
        computed(Read(), Add(1), Add(2))
        assert computed(Read(), Add(2), Add(1)) == 4
        assert computed(Read(), Add(1), Add(2)) == 0

    def test_how_transforms_are_composed(self, items, tmp_path):
        cached(items, Compose([Read()]), tmp_path / "cache")[0]
        cached(items, Compose([Read()], map_items=False), tmp_path / "cache")[0]
        assert len(CALLS) == 2

    def test_content_of_a_source_file(self, computed, items):
        computed(Read())
        Path(items[2]["image"]).write_text("2 2 3 4")
        assert computed(Read()) == 1
        assert CALLS == ["item 2"]

    def test_time_of_change_of_a_source_file_of_equal_size(self, computed, items, tmp_path):
        computed(Read())
        os.utime(items[1]["image"], ns=(1, 10**18))
        assert computed(Read()) == 1
        assert CALLS == ["item 1"]

    def test_a_file_in_a_folder_that_an_item_names(self, computed, items, tmp_path):
        (tmp_path / "series").mkdir()
        slices = [{**items[0], "series": str(tmp_path / "series")}]
        computed(Read(), data=slices)
        assert computed(Read(), data=slices) == 0
        (tmp_path / "series" / "001.dcm").write_text("a")
        assert computed(Read(), data=slices) == 1
        (tmp_path / "series" / "001.dcm").write_text("ab")
        assert computed(Read(), data=slices) == 1

    def test_any_other_entry_of_an_item(self, computed, items):
        computed(Read())
        assert computed(Read(), data=[{**items[0], "slice": 7}]) == 1

    def test_source_of_this_package(self, computed, monkeypatch):
        computed(Read())
        monkeypatch.setattr(caching, "_package_source", lambda: "another")
        assert computed(Read()) == 4

    def test_source_of_this_package_is_all_of_it(self, tmp_path, monkeypatch):
        package = tmp_path / "package"
        (package / "inner").mkdir(parents=True)
        (package / "inner" / "helper.py").write_text("x = 1")
        monkeypatch.setattr(caching, "_PACKAGE", package)
        digests = []
        for text in ("x = 1", "x = 2"):
            (package / "inner" / "helper.py").write_text(text)
            digests.append(caching._package_source.__wrapped__())
        assert digests[0] != digests[1]

    def test_version_of_a_library(self, computed, monkeypatch):
        computed(Read())
        monkeypatch.setattr(caching.importlib.metadata, "version", lambda name: "0.0.1")
        assert computed(Read()) == 4

    def test_source_of_the_transforms_own_module(self, tmp_path, monkeypatch):
        source = "HELPER = {}\nclass Step:\n    pass\nclass Below(Step):\n    pass\n"
        monkeypatch.syspath_prepend(tmp_path)
        keys = []
        for helper in (1, 1, 2):
            (tmp_path / "own_steps.py").write_text(source.format(helper))
            caching._file_digest.cache_clear()
            sys.modules.pop("own_steps", None)
            importlib.invalidate_caches()
            keys.append(content_key(importlib.import_module("own_steps").Below()))
        sys.modules.pop("own_steps")
        assert keys[0] == keys[1] != keys[2]

    def test_but_no_random_transform(self, computed):
        computed(Read(), random_scale(), Add(1))
        assert computed(Read(), random_scale(prob=0.2), Add(2)) == 0
        assert computed(Read(), RandFlipd("image", prob=1)) == 0
        assert computed(Read()) == 0

    def test_nor_the_use_of_a_transform(self, items):
        pad = Compose([Read(), SpatialPadd("image", spatial_size=[5])])
        before = content_key(list(pad.transforms))
        pad.inverse(pad(items[0]))
        assert content_key(list(pad.transforms)) == before

    def test_nor_the_process(self, another_process):
        assert another_process[0] == content_key([{"x": None, "y": 1.5}, LoadItem(label_values={0: 0, 1: 1})])


class TestDamage:
    def entry(self, items, tmp_path):
        cached(items[:1], [Read()], tmp_path / "cache")[0]
        CALLS.clear()
        (path,) = (tmp_path / "cache").iterdir()
        return path

    @pytest.mark.parametrize("keep", [0, 10, 300, -3])
    def test_a_damaged_entry_is_made_anew(self, items, tmp_path, keep):
        path = self.entry(items, tmp_path)
        path.write_bytes(path.read_bytes()[:keep])
        data = cached(items[:1], [Read()], tmp_path / "cache")
        with pytest.warns(UserWarning, match="damaged"):
            assert data[0]["image"].tolist() == [[0, 2, 3]]
        assert data[0]["image"].tolist() == [[0, 2, 3]]
        assert CALLS == ["item 0"]

    @pytest.mark.parametrize(
        "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
    )
    def test_no_code_in_an_entry_is_run(self, items, tmp_path, save):
        path = self.entry(items, tmp_path)
        save(Trap(str(tmp_path / "sprung")), path)
        with pytest.warns(UserWarning, match="damaged"):
            assert cached(items[:1], [Read()], tmp_path / "cache")[0]["image"].tolist() == [[0, 2, 3]]
        assert not (tmp_path / "sprung").exists()

    def test_a_failed_write_leaves_nothing_behind(self, items, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError("disk full")

        data = cached(items, [Read()], tmp_path / "cache")
        monkeypatch.setattr("os.replace", fail)
        with pytest.raises(OutputError, match="disk full"):
            data[0]
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_named(self, items, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match=str(tmp_path / "file" / "cache")):
            cached(items, [Read()], tmp_path / "file" / "cache")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


class TestRefusals:
    @pytest.mark.parametrize(
        "held",
        [
            *(threading.Lock(), (x for x in ""), np.random.RandomState(0), torch.Generator(), sys.stdout, {1}),
            *(max, np.log1p, torch.zeros(2), np.zeros(2), functools.partial(max, 1), lambda x: x),
        ],
        ids=lambda held: type(held).__name__,
    )
    def test_what_cannot_be_described_is_refused_and_named(self, items, tmp_path, held):
        with pytest.raises(ConfigError) as caught:
            cached(items, [Read(options={"deep": held})], tmp_path / "cache")
        assert f"{type(held).__qualname__} in Read['options']['deep']" in str(caught.value)

    def test_so_is_a_class_typed_at_a_prompt(self, another_process):
        assert another_process[1:] == ["ConfigError"]

    def test_what_cannot_be_read_back_without_pickle_is_refused(self, items, tmp_path):
        data = cached(items, [Read(), Spring()], tmp_path / "cache")
        with pytest.raises(ConfigError, match=r"(?s)cannot be cached.*name: Trap"):
            data[0]
        assert list((tmp_path / "cache").iterdir()) == []

    def test_memory_takes_either(self, items):
        assert cached(items, [Read(options=threading.Lock()), Spring()])[0]["name"].path == "item 0"
