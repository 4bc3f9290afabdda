"""Splits that keep patients whole, whatever the order of the files."""

import itertools
from collections import Counter

import numpy as np
import pytest

from topolora_monai.data.folds import cross_validation, fold_parts, groups_from_names, random_splits
from topolora_monai.data.items import SPLITS, Item
from topolora_monai.errors import ConfigError, DataError


def scans(count: int, sizes=()) -> list[Item]:
    """Images without group, then a group of each size."""
    items = [Item(name=f"scan{n:02d}", image=f"/scan{n:02d}.png") for n in range(count)]
    for group, size in enumerate(sizes):
        items += [Item(name=f"p{group}_{n}", image=f"/p{group}_{n}.png", group=f"p{group}") for n in range(size)]
    return items


def names(items) -> list[str]:
    return [item["name"] for item in items]


def shuffled(items, seed=0):
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def groups_are_whole(splits) -> bool:
    places = {(item["group"], split) for split, items in splits.items() for item in items if "group" in item}
    return len(places) == len({group for group, _ in places})


class TestFolds:
    @pytest.mark.parametrize(("count", "folds"), [(10, 5), (11, 4), (7, 7), (20, 2), (23, 3)])
    def test_sizes_differ_by_one(self, count, folds):
        parts = fold_parts(scans(count), folds)
        assert sorted(name for part in parts for name in names(part)) == names(scans(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1

    def test_groups_stay_whole_and_sizes_near(self):
        items = scans(5, sizes=(7, 6, 5, 4, 3, 3, 2, 2))
        for seed in range(10):
            parts = fold_parts(items, 4, seed)
            assert groups_are_whole(dict(enumerate(parts)))
            assert sum(map(len, parts)) == 37
            assert max(map(len, parts)) - min(map(len, parts)) <= 1  # the single images even it out

    def test_order_of_input_does_not_matter_but_the_seed_does(self):
        items = scans(12, sizes=(3, 2, 2))
        parts = [names(part) for part in fold_parts(items, 4, seed=5)]
        assert [names(part) for part in fold_parts(shuffled(items), 4, seed=5)] == parts
        assert [names(part) for part in fold_parts(items, 4, seed=6)] != parts
        assert all(part == sorted(part) for part in parts)

    def test_shuffled(self):
        assert names(fold_parts(scans(20), 2)[0]) not in (names(scans(20))[:10], names(scans(20))[::2])

    def test_given_groups_win(self):
        items = scans(6)
        parts = fold_parts([Item(**item, group=group) for item, group in zip(items, "abcabc", strict=True)], 3)
        assert sorted(names(part) for part in parts) == [
            ["scan00", "scan03"],
            ["scan01", "scan04"],
            ["scan02", "scan05"],
        ]
        assert {item["group"] for part in parts for item in part} == {"a", "b", "c"}

    def test_equal_names_in_other_folders_are_two_images(self):
        items = [Item(name="a", image=f"/{folder}/a.png") for folder in "xyz"]
        assert [len(part) for part in fold_parts(items, 3)] == [1, 1, 1]

    def test_too_few(self):
        with pytest.raises(DataError, match="fewer groups than folds") as error:
            fold_parts(scans(1, sizes=(9, 9)), 4)
        assert "19 images in 3 groups" in str(error.value)
        for folds in (1, 0, -2, 2.5, True):
            with pytest.raises(ConfigError, match="too few folds"):
                fold_parts(scans(9), folds)


class TestRounds:
    def test_every_image_is_for_test_and_for_validation_once(self):
        items = scans(8, sizes=(4, 3, 2))
        rounds = [cross_validation(fold_parts(items, 5), fold) for fold in range(5)]
        for split, times in (("test", 1), ("validation", 1), ("training", 3)):
            counts = Counter(name for splits in rounds for name in names(splits[split]))
            assert counts == dict.fromkeys(names(items), times)
        for splits in rounds:
            assert sum(len(splits[split]) for split in SPLITS) == len(items)
            assert groups_are_whole(splits)
        for this, following in itertools.pairwise([*rounds, rounds[0]]):
            assert names(this["validation"]) == names(following["test"])

    def test_validation_fraction(self):
        for folds in (2, 4):
            splits = cross_validation(fold_parts(scans(20), folds), 1, validation_fraction=0.2)
            test = names(fold_parts(scans(20), folds)[1])
            assert names(splits["test"]) == test
            assert 1 <= len(splits["validation"]) < 20 - len(test)
            assert sorted(name for split in SPLITS for name in names(splits[split])) == names(scans(20))

    def test_test_images_apart(self):
        parts, apart = fold_parts(scans(6), 3), [Item(name="t", image="/t.png")]
        splits = cross_validation(parts, 2, apart)
        assert names(splits["validation"]) == names(parts[2])
        assert names(splits["test"]) == ["t"]
        assert names(splits["training"]) == sorted(names(parts[0]) + names(parts[1]))

    def test_impossible_rounds(self):
        for fold in (3, -1, 1.0):
            with pytest.raises(ConfigError, match="no such fold") as error:
                cross_validation(fold_parts(scans(9), 3), fold)
            assert "from 0 to 2" in str(error.value)


FRACTIONS = {"validation": 0.2, "test": 0.1}


class TestRandomSplits:
    def test_fractions_of_all(self):
        splits = random_splits(shuffled(scans(2000)), FRACTIONS, seed=3)
        assert [len(splits[split]) for split in SPLITS] == pytest.approx([1400, 400, 200], abs=40)  # 3 deviations or so
        assert sorted(name for split in SPLITS for name in names(splits[split])) == sorted(names(scans(2000)))
        assert splits == random_splits(scans(2000), FRACTIONS, seed=3)
        assert splits != random_splits(scans(2000), FRACTIONS, seed=4)

    def test_the_same_on_every_machine(self):
        splits = random_splits(scans(10, sizes=(2,)), FRACTIONS)
        assert {split: names(splits[split]) for split in SPLITS[1:]} == {
            "validation": ["scan04"],
            "test": ["p0_0", "p0_1", "scan06", "scan07"],
        }

    @pytest.mark.parametrize("count", range(3, 12))
    def test_additions_move_nothing_that_was_trained_on(self, count):
        """Nor out of training and test, but for the one image that fills an otherwise empty split."""
        for seed in range(40):
            few, more = scans(count), scans(3 * count, sizes=(2, 3))
            before, after = (random_splits(items, FRACTIONS, seed) for items in (few, more))
            assert all(before.values())
            assert groups_are_whole(after)
            trained = set(names(before["training"]))
            if len(trained) > 1:  # a single one may be lent by another split
                assert not trained & {*names(after["validation"]), *names(after["test"])}
            moved = {name for split in SPLITS for name in set(names(before[split])) - set(names(after[split]))}
            assert len(moved) <= 2

    def test_another_fraction_for_one_split_leaves_the_other(self):
        before = random_splits(scans(30), {"validation": 0.2, "test": 0.2})
        after = random_splits(scans(30), {"validation": 0.1, "test": 0.2})
        assert before["test"] == after["test"]
        assert set(names(after["validation"])) < set(names(before["validation"]))

    def test_one_at_least_and_none_for_zero(self):
        splits = random_splits(scans(4), {"validation": 0.01, "test": 0.0})
        assert [len(splits[split]) for split in SPLITS] == [3, 1, 0]

    def test_no_split_stays_empty(self):
        for seed in range(300):
            assert all(random_splits(scans(3), {"validation": 0.4, "test": 0.5}, seed).values())
            assert all(random_splits(scans(3), {"validation": 0.001, "test": 0.001}, seed).values())

    def test_groups_stay_whole(self):
        items = scans(0, sizes=(2,) * 300)
        for seed in range(3):
            splits = random_splits(items, {"validation": 0.2, "test": 0.2}, seed)
            assert groups_are_whole(splits)
            assert [len(splits[split]) for split in SPLITS] == pytest.approx([360, 120, 120], abs=45)

    @pytest.mark.parametrize("fractions", [{"test": -0.1}, {"test": 1.0}, {"test": 0.5, "validation": 0.5}])
    def test_impossible_fractions(self, fractions):
        with pytest.raises(ConfigError, match="impossible fractions"):
            random_splits(scans(9), fractions)


class TestGroupsFromNames:
    def test_two_eyes_of_a_patient(self):
        assert groups_from_names(["Image_01L", "Image_01R", "Image_14R"], r"Image_(\d+)[LR]") == ["01", "01", "14"]

    @pytest.mark.parametrize("name", ["image_01L", "Image_01", "Image_01L_1", "xImage_01L", "Image_L"])
    def test_whole_name_has_to_fit(self, name):
        with pytest.raises(DataError, match="does not fit group_pattern") as error:
            groups_from_names(["Image_01L", name], r"Image_(\d*)[LR]")
        assert name in str(error.value)

    @pytest.mark.parametrize(("pattern", "message"), [("(", "no regular"), ("a.*", "one pair"), ("(a)(b)", "one pair")])
    def test_bad_patterns(self, pattern, message):
        with pytest.raises(ConfigError, match=message):
            groups_from_names(["ab"], pattern)
