"""A mismatched installation is explained."""

import importlib

import pytest

from topolora_monai.extras import check_torchvision


def test_mismatched_pair_is_named_with_the_way_out(monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError, match=r"pip install torch==\S+ torchvision==\S+") as error:
        check_torchvision()
    assert "Found torch " in str(error.value)


def test_good_installation_passes():
    check_torchvision()


def test_advised_pair_is_the_pinned_one(monkeypatch):
    from tests.conftest import ROOT

    def fail(name):
        raise RuntimeError("no")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError) as error:
        check_torchvision()
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    for package in ("torch", "torchvision"):
        (pin,) = (line for line in pins if line.startswith(f"{package}=="))
        assert pin in str(error.value)
