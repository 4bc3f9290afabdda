"""Seeded splits: by fraction or by folds, and never through a patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from topolora_monai.data.items import SPLITS, Item, Split
from topolora_monai.errors import ConfigError, DataError

__all__ = ["cross_validation", "fold_parts", "fold_splits", "groups_from_names", "random_splits"]


def fold_splits(
    items: Sequence[Item],
    folds: int,
    fold: int,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    validation_fraction: float | None = None,
) -> dict[Split, list[Item]]:
    """Splits of one round of a k-fold cross-validation.

    Fold ``fold`` is for test, the next one (after the last, the first) for validation, the others for training.
    Over all rounds each item is for test once. The folds are those of :func:`fold_parts`.

    Args:
        items: in any order.
        folds: their number, at least 3, or 2 with a ``validation_fraction``.
        fold: number of this round, from 0.
        seed: of the shuffle.
        groups: of each item; by default the items' ``group``, and each item without one by itself.
        validation_fraction: in place of the next fold, hold out this fraction of all that is not for test.

    Returns:
        Items of each split, in order of name.

    Raises:
        ConfigError: if such folds are not possible.
        DataError: if there are fewer groups than folds.

    Example:
        >>> scans = [Item(name=name, image=f"{name}.png") for name in ("a_1", "a_2", "b_1", "c_1")]
        >>> splits = fold_splits(scans, folds=3, fold=0, groups=["a", "a", "b", "c"])
        >>> [item["name"] for item in splits["test"]]
        ['a_1', 'a_2']
    """
    if folds == 2 and validation_fraction is None:
        raise ConfigError(
            "with two folds none is left for training",
            expected="at least 3 folds, or a validation_fraction",
            hint="raise folds, or give validation_fraction",
        )
    return cross_validation(fold_parts(items, folds, seed, groups), fold, None, validation_fraction, seed)


def fold_parts(
    items: Sequence[Item], folds: int, seed: int = 0, groups: Sequence[str] | None = None
) -> list[list[Item]]:
    """Divide items into folds of balanced size, each group in one of them.

    The groups are shuffled, then handed out from the largest to the smallest, each to the fold with the fewest
    items: sizes differ by one item where there are no groups, and by the largest group at most where there are.
    The result depends on names and seed, not on the order of ``items``.

    Args:
        items: in any order.
        folds: their number, at least 2.
        seed: of the shuffle.
        groups: as for :func:`fold_splits`.

    Returns:
        Items of each fold, in order of name.

    Raises:
        ConfigError: if ``folds`` is less than 2.
        DataError: if there are fewer groups than folds.

    Example:
        >>> scans = [Item(name=name, image=f"{name}.png") for name in "abcde"]
        >>> [len(part) for part in fold_parts(scans, 2)]
        [3, 2]
    """
    if type(folds) is not int or folds < 2:
        raise ConfigError("too few folds", expected="an integer of at least 2", found=repr(folds), hint="raise folds")
    members = _by_group(_with_groups(items, groups))
    if len(members) < folds:
        raise DataError(
            "fewer groups than folds",
            expected=f"at least {folds} groups that may be divided, an image without a group counts as one",
            found=f"{len(items)} images in {len(members)} groups",
            hint="lower folds, or add images",
        )
    parts: list[list[Item]] = [[] for _ in range(folds)]
    for group in sorted(_shuffled(members, seed), key=len, reverse=True):  # sorting keeps the shuffle among equals
        min(parts, key=len).extend(group)
    return [sorted(part, key=_by_name) for part in parts]


def cross_validation(
    parts: Sequence[Sequence[Item]],
    fold: int,
    test: Sequence[Item] | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
) -> dict[Split, list[Item]]:
    """Splits of one round over given folds.

    Args:
        parts: items of each fold.
        fold: number of this round: the fold for test, the next one being for validation. With items for test
            apart from the folds, it is the fold for validation.
        test: items that are for test in every round.
        validation_fraction: in place of the next fold, hold out this fraction of all that is not for test.
        seed: of that choice.

    Returns:
        Items of each split, in order of name.

    Raises:
        ConfigError: if there is no such fold.
    """
    if type(fold) is not int or not 0 <= fold < len(parts):
        raise ConfigError("no such fold", expected=f"an integer from 0 to {len(parts) - 1}", found=repr(fold))
    if test is None:
        test, left = parts[fold], [*parts[fold + 1 :], *parts[:fold]]
    else:
        left = [parts[fold], *parts[:fold], *parts[fold + 1 :]]
    if validation_fraction is not None:
        splits = random_splits([item for part in left for item in part], {"validation": validation_fraction}, seed)
        return {**splits, "test": sorted(test, key=_by_name)}
    return {
        "training": sorted((item for part in left[1:] for item in part), key=_by_name),
        "validation": sorted(left[0], key=_by_name),
        "test": sorted(test, key=_by_name),
    }


def random_splits(
    items: Sequence[Item], fractions: Mapping[Split, float], seed: int = 0, groups: Sequence[str] | None = None
) -> dict[Split, list[Item]]:
    """Hold out fractions of the items at random, each group in one split, the rest being for training.

    Each split takes whole groups, in shuffled order, as long as that brings it nearer to its fraction, and one at
    least if its fraction is not 0. The result depends on names and seed, not on the order of ``items``.

    Args:
        items: in any order.
        fractions: of all items, for each split to hold out.
        seed: of the shuffle.
        groups: as for :func:`fold_splits`.

    Returns:
        Items of each split, in order of name; those of splits without a fraction are empty.

    Raises:
        ConfigError: if a fraction is negative, or they leave nothing for training.

    Example:
        >>> scans = [Item(name=name, image=f"{name}.png") for name in "abcde"]
        >>> {split: len(part) for split, part in random_splits(scans, {"test": 0.2}).items()}
        {'training': 4, 'validation': 0, 'test': 1}
    """
    if any(fraction < 0 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        raise ConfigError(
            "impossible fractions",
            expected="none below 0, and less than 1 in all",
            found=", ".join(f"{split}_fraction {fraction:g}" for split, fraction in fractions.items()),
        )
    left = _shuffled(_by_group(_with_groups(items, groups)), seed)
    splits: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    for split, fraction in fractions.items():
        count = max(1, round(fraction * len(items))) if fraction > 0 else 0
        held, left = _take(left, count)
        splits[split] = sorted(held, key=_by_name)
    splits["training"] = sorted((item for group in left for item in group), key=_by_name)
    return splits


def groups_from_names(names: Sequence[str], pattern: str) -> list[str]:
    r"""Group of each name, such as the patient's number.

    Args:
        names: of images, without folder and suffix.
        pattern: regular expression that fits the whole name, with one group in parentheses.

    Raises:
        ConfigError: if the pattern is not of that form.
        DataError: if a name does not fit it.

    Example:
        >>> groups_from_names(["Image_01L", "Image_01R", "Image_02L"], r"Image_(\d+)[LR]")
        ['01', '01', '02']
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            "group_pattern is no regular expression", expected="such as (.*)_[LR]", found=f"{pattern!r}: {error}"
        ) from error
    if compiled.groups != 1:
        raise ConfigError(
            "group_pattern needs one pair of parentheses", expected="such as (.*)_[LR]", found=repr(pattern)
        )
    groups = []
    for name in names:
        match = compiled.fullmatch(name)
        if not match or not match[1]:
            raise DataError(
                "name does not fit group_pattern",
                expected=f"a name of the form {pattern}, from its first to its last character",
                found=name,
                hint="widen group_pattern, or rename the image",
            )
        groups.append(match[1])
    return groups


def _with_groups(items: Sequence[Item], groups: Sequence[str] | None) -> list[Item]:
    if groups is None:
        return list(items)
    return [Item(**{**item, "group": group}) for item, group in zip(items, groups, strict=True)]


def _by_name(item: Item) -> tuple[str, str]:
    return item["name"], item["image"]


def _by_group(items: Sequence[Item]) -> list[list[Item]]:
    """Members of each group, groups in order of name; an item without a group stands alone."""
    members: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        key = (item["group"],) if "group" in item else (item["name"], item["image"])
        members.setdefault(key, []).append(item)
    return [members[key] for key in sorted(members)]


def _shuffled(groups: Sequence[list[Item]], seed: int) -> list[list[Item]]:
    return [groups[int(i)] for i in np.random.default_rng(seed).permutation(len(groups))]


def _take(groups: Sequence[list[Item]], count: int) -> tuple[list[Item], list[list[Item]]]:
    """About ``count`` items in whole groups, and the groups that are left."""
    held: list[Item] = []
    left: list[list[Item]] = []
    for group in groups:
        if abs(len(held) + len(group) - count) < abs(len(held) - count):
            held += group
        else:
            left.append(group)
    if count and left and not held:  # every group is more than twice too large
        held = left.pop(min(range(len(left)), key=lambda i: len(left[i])))
    return held, left
