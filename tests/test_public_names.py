"""The package's own names, and what it takes to start: nothing heavy before it is needed."""

import ast
import json

import pytest

import topolora_monai
from tests.conftest import ROOT
from tests.processes import run_code_afresh

HEAVY = ("torch", "monai", "numpy", "PIL", "peft", "ignite", "scipy", "nibabel", "itk", "rich")


def heavy_after(code: str) -> list[str]:
    done = run_code_afresh(f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return [name for name in json.loads(done.stdout.splitlines()[-1]) if name in HEAVY]


@pytest.mark.parametrize(
    "code",
    [
        "import topolora_monai; dir(topolora_monai); topolora_monai.__version__; topolora_monai.TopoLoRAError",
        *(
            f"import topolora_monai.cli\ntry:\n    topolora_monai.cli.main({words!r})\nexcept SystemExit:\n    pass"
            for words in (["--help"], ["train", "--help"], ["evaluate", "-h"], ["predict", "--help"], ["train"])
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert heavy_after(code) == []


def test_names_are_there_each_from_where_it_is_said_to_be():
    assert len(topolora_monai.__all__) >= 15
    for name in topolora_monai.__all__:
        assert getattr(topolora_monai, name) is not None
        assert name in dir(topolora_monai)
    with pytest.raises(AttributeError, match="no attribute 'adept'"):
        topolora_monai.adept  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "topolora_monai/__init__.py").read_text())
    seen = {alias.name for block in tree.body if isinstance(block, ast.If)
            for line in block.body for alias in line.names}  # fmt: skip
    assert seen | {"__version__"} == set(topolora_monai.__all__)
