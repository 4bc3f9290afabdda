"""What an exported file says of itself, and what is refused."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from tests.export.helpers import HEIGHT, WIDTH, adapted, eager, fundus, read_metadata, write_adapter
from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.cli import main
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.export import export_adapter, export_network
from topolora_monai.model.predictor import Predictor
from topolora_monai.networks import build_network

SIZE = (HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def network():
    return build_network("little_wnet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_adapter(tmp_path_factory.mktemp("run") / "adapter.safetensors")


class TestMetadata:
    def test_of_an_adapter(self, trained, tmp_path, capsys):
        out = tmp_path / "new" / "vessels.ts"
        assert main(["export", "--adapter", str(trained), "--format", "torchscript", "--out", str(out)]) == 0
        assert str(out) in capsys.readouterr().out
        metadata = read_metadata(out)
        assert metadata["labels"] == ["background", "vessel"]
        assert metadata["threshold"] == 0.4
        assert (metadata["pixel_scale"], metadata["trained_pixel_scale"]) == (2, 2)
        assert metadata["crop_size"] == 32
        assert metadata["input_shape"] == ["batch", 3, 32, 32]
        assert metadata["adaptation"]["preset"] == "topolora"
        assert len(metadata["base_sha256"]) == 64
        assert {"package_version", "trained_with"} <= metadata.keys()

    def test_other_size_tells_its_scale(self, trained, tmp_path):
        out = str(tmp_path / "a.ts")
        options = ["--height", "40", "--width", "56", "--image_size", "112"]
        assert main(["export", "--adapter", str(trained), "--format", "torchscript", "--out", out, *options]) == 0
        metadata = read_metadata(tmp_path / "a.ts")
        assert metadata["input_shape"] == ["batch", 3, 40, 56]
        assert metadata["image_size"] == 112
        assert (metadata["pixel_scale"], metadata["trained_pixel_scale"]) == (2, 2)
        found = torch.jit.load(out)(fundus(1))
        other = adapted().network
        other.image_size = 112
        torch.testing.assert_close(found, eager(other, fundus(1)), rtol=1e-4, atol=1e-4)


def test_probabilities(network, tmp_path):
    path = tmp_path / "a.ts"
    export_network(network, path, "torchscript", SIZE, probabilities=True)
    assert read_metadata(path)["output"] == "probabilities"
    torch.testing.assert_close(torch.jit.load(path)(fundus(1)), eager(network, fundus(1)).sigmoid())


def test_probabilities_of_an_adapter_are_those_it_is_used_with(tmp_path):
    network = build_network("vit_tiny_test", image_size=64, out_channels=2)
    adaptation = adapt(network, preset_config("decoder_only"))
    for parameter in adaptation.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    save_adapter(adaptation, tmp_path / "a.safetensors", activation="softmax", temperature=3.0, crop_size=32)
    export_adapter(tmp_path / "a.safetensors", tmp_path / "a.ts", "torchscript", probabilities=True)
    predictor = Predictor.from_adapter(tmp_path / "a.safetensors", device="cpu", precision="fp32")
    image = fundus(1)[..., :32, :32]
    expected = predictor(image[0]).probabilities
    assert np.abs(expected - eager(network, image)[0].sigmoid().numpy()).max() > 0.1
    np.testing.assert_allclose(torch.jit.load(tmp_path / "a.ts")(image)[0], expected, atol=1e-5)


def test_training_mode_is_left_and_not_exported(tmp_path):
    network = build_network("unet_resnet34").train()
    export_network(network, tmp_path / "a.ts", "torchscript", (64, 64))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(torch.jit.load(tmp_path / "a.ts")(image), eager(network, image), rtol=1e-4, atol=1e-4)


class DependsOnData(nn.Module):
    """Cannot be a graph: which way it goes is up to the image."""

    in_channels = 3
    base_name = "undecided"

    def forward(self, image):
        return image[:, :1] if image.sum() > 0 else -image[:, :1]


class Counting(nn.Module):
    """Gives something else each time, of which a graph keeps one."""

    in_channels = 3
    base_name = "counting"
    calls = 0

    def forward(self, image):
        self.calls += 1
        return image[:, :1] * self.calls


class FixedBatch(nn.Module):
    """Traces into a graph that fails for another batch."""

    in_channels = 3
    base_name = "fixed"

    def forward(self, image):
        return image[:, :1].reshape(int(image.shape[0]), 1, HEIGHT, WIDTH)


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("a.pt", {"format": "pickle"}, "unknown format"),
            ("a.onnx", {"format": "pt2"}, "ends in .pt2"),
            ("a.ts", {"format": "torchscript", "int8": True}, "only ONNX files are quantised"),
            ("a.ts", {"format": "torchscript", "size": (0, 32)}, "does not fit"),
            ("a.ts", {"format": "torchscript", "images": torch.rand(1, 3, HEIGHT, WIDTH)}, "do not fit the graph"),
        ],
    )
    def test_settings(self, network, tmp_path, name, options, message):
        with pytest.raises(ConfigError, match=message):
            export_network(network, tmp_path / name, **{"size": SIZE, **options})
        assert not list(tmp_path.iterdir())

    def test_image_size_of_another_stride(self, trained, tmp_path):
        with pytest.raises(ConfigError, match="image_size does not fit"):
            export_adapter(trained, tmp_path / "a.ts", "torchscript", image_size=70)

    @pytest.mark.parametrize("format_name", ["pt2", "onnx"])
    def test_unsupported_network(self, tmp_path, format_name):
        path = tmp_path / f"a.{format_name}"
        path.write_bytes(b"older")
        with pytest.raises(ConfigError, match=f"undecided cannot be exported as {format_name}"):
            export_network(DependsOnData(), path, format_name, SIZE)
        assert path.read_bytes() == b"older"
        assert [file.name for file in tmp_path.iterdir()] == [path.name]

    def test_graph_with_other_values(self, tmp_path):
        with pytest.raises(ConfigError, match="counting gives other values as torchscript"):
            export_network(Counting(), tmp_path / "a.ts", "torchscript", SIZE)
        assert not list(tmp_path.iterdir())

    def test_graph_for_one_size_of_batch(self, tmp_path):
        with pytest.raises(ConfigError, match="fixed cannot be exported as torchscript"):
            export_network(FixedBatch(), tmp_path / "a.ts", "torchscript", SIZE)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
    def test_missing_library(self, network, tmp_path, monkeypatch, library):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ConfigError, match=library) as error:
            export_network(network, tmp_path / "a.onnx", "onnx", SIZE)
        assert 'pip install "topolora_monai[export]"' in str(error.value)
        assert not list(tmp_path.iterdir())

    def test_too_large_for_onnx(self, network, tmp_path, monkeypatch):
        monkeypatch.setattr("topolora_monai.export.formats._ONNX_LIMIT", 1000)
        with pytest.raises(ConfigError, match="too large for one file of ONNX"):
            export_network(network, tmp_path / "a.onnx", "onnx", SIZE)

    def test_place_that_cannot_be_written(self, network, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="cannot write the graph"):
            export_network(network, tmp_path / "file" / "a.ts", "torchscript", SIZE)

    def test_half_a_size(self, trained, tmp_path, capsys):
        out = str(tmp_path / "a.ts")
        arguments = ["export", "--adapter", str(trained), "--format", "torchscript", "--out", out, "--height", "32"]
        assert main(arguments) == 1
        assert "come together" in capsys.readouterr().err


def test_missing_onnx_does_not_matter_to_others(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    export_network(network, tmp_path / "a.ts", "torchscript", SIZE)
