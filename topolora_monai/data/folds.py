"""Seeded splits: by fraction or by folds, and never through a patient."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from topolora_monai.data.items import SPLITS, Item, Split
from topolora_monai.errors import ConfigError, DataError


def fold_parts(items: Sequence[Item], folds: int, seed: int = 0) -> list[list[Item]]:
    """Divide items into at least 2 folds of balanced size, each group in one of them and each fold in order of name.

    The groups are shuffled by the seed, then handed out from the largest to the smallest, each to the fold with the
    fewest items: sizes differ by one item where there are no groups, and by the largest group at most where there are.
    The order of the items does not matter, and each without a ``group`` stands alone.

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
    members = _by_group(items)
    if len(members) < folds:
        raise DataError(
            "fewer groups than folds",
            expected=f"at least {folds} groups that may be divided, an image without a group counts as one",
            found=f"{len(items)} images in {len(members)} groups",
            hint="lower folds, or add images",
        )
    parts: list[list[Item]] = [[] for _ in range(folds)]
    shuffled = [members[int(i)] for i in np.random.default_rng(seed).permutation(len(members))]
    for group in sorted(shuffled, key=len, reverse=True):  # sorting keeps the shuffle among equals
        min(parts, key=len).extend(group)
    return [sorted(part, key=_by_name) for part in parts]


def cross_validation(
    parts: Sequence[Sequence[Item]],
    fold: int,
    test: Sequence[Item] | None = None,
    validation_fraction: float | None = None,
    seed: int = 0,
) -> dict[Split, list[Item]]:
    """Splits of one round over given folds, in order of name; over all rounds each item is for test once.

    Args:
        parts: items of each fold.
        fold: number of this round, from 0: the fold for test, the next one (after the last, the first) being for
            validation. With items for test apart from the folds, it is the fold for validation.
        test: items that are for test in every round.
        validation_fraction: in place of the next fold, hold out this fraction of all that is not for test.
        seed: of that choice.

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


def random_splits(items: Sequence[Item], fractions: Mapping[Split, float], seed: int = 0) -> dict[Split, list[Item]]:
    """Hold out fractions of the items at random, each group in one split, the rest being for training; all by name.

    Each group has a number in [0, 1), a hash of the seed and its name (of an image without a group, the image's own
    name). Numbers below the test fraction are for test, those from one minus the validation fraction on for
    validation. So adding images moves none that is there; the shares reached scatter around the fractions. Of few
    groups, a split with a fraction that would stay empty borrows the one whose number is nearest to it, which later
    additions may give back to training. The order of the items does not matter.

    Raises:
        ConfigError: if a fraction is negative, or they leave nothing for training.

    Example:
        >>> scans = [Item(name=name, image=f"{name}.png") for name in "abcdefgh"]
        >>> before, after = random_splits(scans[:5], {"test": 0.2}), random_splits(scans, {"test": 0.2})
        >>> {split: [item["name"] for item in part] for split, part in before.items()}
        {'training': ['a', 'b', 'd', 'e'], 'validation': [], 'test': ['c']}
        >>> [item["name"] for item in before["training"] if item in after["test"]]
        []
    """
    if any(fraction < 0 for fraction in fractions.values()) or sum(fractions.values()) >= 1:
        raise ConfigError(
            "impossible fractions",
            expected="none below 0, and less than 1 in all",
            found=", ".join(f"{split}_fraction {fraction:g}" for split, fraction in fractions.items()),
        )
    numbered = [(_number(members[0], seed), members) for members in _by_group(items)]
    low, high = fractions.get("test", 0), 1 - fractions.get("validation", 0)
    held: dict[Split, list[list[Item]]] = {split: [] for split in SPLITS}
    for number, members in sorted(numbered, key=lambda pair: pair[0]):
        held["test" if number < low else "validation" if number >= high else "training"].append(members)
    _fill(held, [split for split in ("test", "validation") if fractions.get(split, 0) > 0])
    return {split: sorted((item for group in held[split] for item in group), key=_by_name) for split in SPLITS}


def groups_from_names(names: Sequence[str], pattern: str) -> list[str]:
    r"""Group, such as the patient's number, of each image's name without folder and suffix.

    The pattern is a regular expression that fits the whole name, with one group in parentheses.

    Raises:
        ConfigError: if the pattern is not of that form.
        DataError: if a name does not fit it.

    Example:
        >>> groups_from_names(["Image_01L", "Image_01R", "Image_02L"], r"Image_(\d+)[LR]")
        ['01', '01', '02']
    """
    example = "such as (.*)_[LR]"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            "group_pattern is no regular expression", expected=example, found=f"{pattern!r}: {error}"
        ) from error
    if compiled.groups != 1:
        raise ConfigError("group_pattern needs one pair of parentheses", expected=example, found=repr(pattern))
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


def _by_name(item: Item) -> tuple[str, str]:
    return item["name"], item["image"]


def _by_group(items: Sequence[Item]) -> list[list[Item]]:
    """Members of each group, groups in order of name; an item without a group stands alone."""
    members: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        key = (item["group"],) if "group" in item else (item["name"], item["image"])
        members.setdefault(key, []).append(item)
    return [members[key] for key in sorted(members)]


def _number(item: Item, seed: int) -> float:
    """Of an item's group, in [0, 1); the same on every machine."""
    kind, name = ("group", item["group"]) if "group" in item else ("name", item["name"])
    digest = hashlib.sha256(json.dumps([seed, kind, name]).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # exact in a float, and below 1


def _fill(held: dict[Split, list[list[Item]]], wanted: Sequence[Split]) -> None:
    """Let no split stay empty while another has two groups; these are in order: test low, validation high."""
    nearest: dict[Split, list[tuple[Split, int]]] = {
        "test": [("training", 0), ("validation", 0)],
        "validation": [("training", -1), ("test", -1)],
        "training": [("validation", 0), ("test", -1)],
    }
    for split in (*wanted, "training"):
        for lender, end in nearest[split]:
            if not held[split] and len(held[lender]) > 1:
                held[split].append(held[lender].pop(end))
        if not held[split] and held["training"]:  # with two groups none is left for training, which is refused
            held[split].append(held["training"].pop())
