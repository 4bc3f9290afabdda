"""Which part of the package may use which: one direction, no circles, no private names of others."""

import ast
from collections.abc import Iterator

import pytest

import topolora_monai
from tests.conftest import ROOT

PACKAGE = ROOT / topolora_monai.__name__
LAYERS = (
    {"errors", "extras", "packaged", "parsing"},
    {"io"},
    {"transforms", "losses", "metrics"},
    {"data", "weights"},
    {"networks"},
    {"spec"},
    {"adapters"},
    {"model"},
    {"engines"},
    {"planning"},
    {"annotation", "reports", "release", "export"},
    {"cli", "label_app"},
)
"""From the ground up: a part uses those of its own layer and of the ones below."""

LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}


def imports() -> Iterator[tuple[str, str, str, str]]:
    """Every import of the package's own, at the top or in a function: file, its part, the other part, the name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                package, *inside = name.split(".")
                if package == PACKAGE.name and inside and place.as_posix() != "__init__.py":
                    yield place.as_posix(), place.parts[0].removesuffix(".py"), inside[0], name


@pytest.fixture(scope="module")
def found():
    return list(imports())


def test_every_part_has_its_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} <= LAYER.keys()


def test_imports_go_one_way(found):
    assert not {(file, other) for file, part, other, _ in found if LAYER.get(other, -1) > LAYER[part]}


def test_parts_of_one_layer_do_not_need_one_another(found):
    """Together with the layers: there is no circle."""
    needs = {(part, other) for _, part, other, _ in found if other != part and LAYER.get(other) == LAYER[part]}
    assert not [pair for pair in needs if pair[::-1] in needs]


def test_private_names_stay_at_home(found):
    assert not [(file, name) for file, _, _, name in found if name.rpartition(".")[2].startswith("_")]
