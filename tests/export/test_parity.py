"""Exported files give what the adapted network gives on real images, for batches of any size."""

import copy

import onnx
import pytest
import torch

from tests.export.helpers import HEIGHT, WIDTH, adapted, eager, fundus, read_metadata, relative_difference
from topolora_monai.adapters import merge
from topolora_monai.export import EXPORT_FORMATS, export_network, quantize
from topolora_monai.export.formats import onnx_runner, run_written


@pytest.mark.parametrize("preset", ["topolora_plus", "conv_lora"])
@pytest.mark.parametrize("format_name", EXPORT_FORMATS)
def test_parity(tmp_path, preset, format_name):
    network = adapted(preset).network
    before = copy.deepcopy(network.state_dict())
    path = tmp_path / f"vessels{EXPORT_FORMATS[format_name]}"
    exported = export_network(network, path, format_name, (HEIGHT, WIDTH), labels=["background", "vessel"])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    run = run_written(path, format_name)
    for count in (1, 3):
        images = fundus(count)
        expected, found = eager(network, images), run(images)
        assert found.shape == (count, 1, HEIGHT, WIDTH)
        assert relative_difference(found, expected) <= 1e-4
    assert exported.difference <= 1e-4
    assert before.keys() == network.state_dict().keys()  # nothing was merged in the caller's network
    metadata = read_metadata(path)
    assert metadata["labels"] == ["background", "vessel"]
    assert metadata["input_shape"] == ["batch", 3, HEIGHT, WIDTH]
    assert metadata["output"] == "logits"
    if format_name == "onnx":
        _check_int8(path, network)


def _check_int8(path, network):
    """The file in 8 bits is smaller, close, and keeps what the other says of itself."""
    small = path.with_name("small.onnx")
    quantize(path, small)
    assert small.stat().st_size < 0.6 * path.stat().st_size
    assert read_metadata(small) == read_metadata(path)
    operators = {node.op_type for node in onnx.load(small).graph.node}
    assert "MatMulInteger" in operators
    assert "ConvInteger" not in operators
    images = fundus(2)
    difference = relative_difference(onnx_runner(small)(images), eager(network, images))
    assert 1e-4 < difference < 0.05


def test_merged_network(tmp_path):
    network = adapted("lora").network
    images = fundus(3)
    expected = eager(network, images)
    merged = merge(network)
    exported = export_network(merged, tmp_path / "a.ts", "torchscript", (HEIGHT, WIDTH))
    assert relative_difference(run_written(exported.path, "torchscript")(images), expected) <= 1e-4


def test_plain_vit_exports_with_gradients_on():
    network = adapted("full").network
    images = fundus(2)
    program = torch.export.export(network, (images,))
    with torch.no_grad():
        assert relative_difference(program.module()(images), eager(network, images)) <= 1e-4
