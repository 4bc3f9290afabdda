"""Adapter files of every version keep loading and answer as they did."""

import json

import pytest
import torch

import topolora_monai
from tests.artefacts import make
from tests.artefacts.networks import build, fill, logits, statistics
from tests.conftest import ROOT
from topolora_monai.adapters import adapter_state, load_adapter, read_spec

ARTEFACTS = ROOT / "tests/artefacts"
EXPECTED = {
    folder.name: json.loads((folder / "expected.json").read_text()) for folder in ARTEFACTS.iterdir()
    if (folder / "expected.json").is_file()
}  # fmt: skip
FILES = [(version, name) for version, cases in EXPECTED.items() for name in cases]


def differs(found, expected):
    return any(
        not torch.allclose(torch.tensor(found[key]), torch.tensor(expected[key]), rtol=0, atol=1e-4) for key in expected
    )


@pytest.mark.parametrize(("version", "name"), FILES)
def test_file_loads_and_answers_as_it_did(version, name):
    case = EXPECTED[version][name]
    network = build(case["base"])
    before = statistics(logits(network))
    assert differs(before, case["logits"])
    load_adapter(network, ARTEFACTS / version / f"{name}.safetensors")
    found = statistics(logits(network))
    assert not differs(found, case["logits"]), (found, case["logits"])


@pytest.mark.parametrize(("version", "name"), FILES)
def test_header_is_read(version, name):
    header = read_spec(ARTEFACTS / version / f"{name}.safetensors").to_header()
    assert header["package_version"] == version
    assert (header["labels"], header["threshold"]) == (["background", "vessel"], 0.4)


def test_this_version_and_each_of_its_methods_has_a_file():
    assert EXPECTED[topolora_monai.__version__].keys() == make.CASES.keys()
    sizes = [path.stat().st_size for path in ARTEFACTS.rglob("*.safetensors")]
    assert len(sizes) == len(FILES)
    assert max(sizes) < 100_000


@pytest.mark.parametrize("name", make.CASES)
def test_values_follow_from_names_alone(name):
    """A file is the same whoever makes it: its tensors are the formula's, not a generator's of torch."""
    version = topolora_monai.__version__
    network = build(EXPECTED[version][name]["base"])
    load_adapter(network, ARTEFACTS / version / f"{name}.safetensors")
    state = adapter_state(network)
    stored = {key: tensor.clone() for key, tensor in state.items()}
    fill(state, name)
    assert all(torch.equal(stored[key], state[key]) for key in state)
