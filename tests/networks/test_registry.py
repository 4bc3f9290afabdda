"""Networks by name, and what happens to checkpoints that do not fit."""

import os
import pickle

import pytest
import torch
from segment_anything import sam_model_registry

from topolora_monai.errors import CheckpointError, ConfigError
from topolora_monai.networks import NETWORK_NAMES, build_network
from topolora_monai.weights import fingerprint


@pytest.fixture
def tiny_checkpoint(tmp_path):
    """A checkpoint in the published format: a flat state dict written by torch.save."""
    path = tmp_path / "tiny.pth"
    torch.save(build_network("vit_tiny_test", image_size=64, seed=7).state_dict(), path)
    return path


def test_vit_b_has_the_tensors_of_the_official_format():
    """Files of it are loaded in ``tests/test_weights.py``."""
    with torch.device("meta"):
        official, own = (net.state_dict() for net in (sam_model_registry["vit_b"](), build_network("vit_b")))
    assert {name: tensor.shape for name, tensor in own.items()} == {
        name: tensor.shape for name, tensor in official.items()
    }


@pytest.mark.parametrize(("name", "millions"), [("vit_b", 93.7), ("vit_l", 312.3), ("vit_h", 641.1), ("vit_t", 9.8)])
def test_sizes(name, millions):
    with torch.device("meta"):
        network = build_network(name)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_same_seed_same_weights_and_no_trace_on_the_global_generator():
    state = torch.get_rng_state()
    first, second, third = (build_network("vit_tiny_test", image_size=64, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert fingerprint(first.state_dict()) == fingerprint(second.state_dict())
    assert fingerprint(first.state_dict()) != fingerprint(third.state_dict())


def test_weights_are_loaded(tiny_checkpoint):
    network = build_network("vit_tiny_test", image_size=64, weights=tiny_checkpoint, out_channels=2, in_channels=4)
    assert torch.equal(
        network.mask_decoder.mask_tokens.weight, torch.load(tiny_checkpoint)["mask_decoder.mask_tokens.weight"]
    )
    assert torch.equal(network.mask_decoder.class_tokens[1], network.mask_decoder.mask_tokens.weight[0])


def test_unknown_name_suggests_a_known_one():
    with pytest.raises(ConfigError, match="did you mean vit_b") as error:
        build_network("vit-b")
    assert all(name in str(error.value) for name in NETWORK_NAMES)


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"not found.*nowhere\.pth"):
        build_network("vit_tiny_test", weights=tmp_path / "nowhere.pth")


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_truncated_checkpoint_is_named(tiny_checkpoint, size):
    tiny_checkpoint.write_bytes(tiny_checkpoint.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"tiny\.pth"):
        build_network("vit_tiny_test", weights=tiny_checkpoint)


def test_checkpoint_of_another_base_names_keys_and_shapes(tiny_checkpoint):
    with pytest.raises(CheckpointError, match="not of base vit_t") as error:
        build_network("vit_t", weights=tiny_checkpoint)
    assert "image_encoder.blocks.0" in str(error.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (os.system, (f"touch {marker}",))

    path = tmp_path / "hostile.pt"
    torch.save({"state": Hostile()}, path)
    with pytest.raises(CheckpointError, match="not opened"):
        build_network("vit_tiny_test", weights=path)
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(CheckpointError):
        build_network("vit_tiny_test", weights=path)
    assert not marker.exists()


def test_something_other_than_tensors_is_refused(tmp_path):
    path = tmp_path / "list.pt"
    torch.save({"epoch": 3, "model": {"w": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="flat state dict"):
        build_network("vit_tiny_test", weights=path)
