"""Any adapter file exports, whatever head it has and however little it says."""

import torch

from tests.export.helpers import read_metadata
from topolora_monai.adapters import adapt, preset_config, save_adapter
from topolora_monai.export import export_adapter
from topolora_monai.networks import build_network


def test_of_a_token_set_with_required_entries_alone(tmp_path):
    network = build_network("vit_tiny_test", image_size=64, out_channels=2, multiclass_head="token_set", mask_tokens=3)
    adaptation = adapt(network, preset_config("decoder_only"))
    save_adapter(adaptation, tmp_path / "a.safetensors")
    done = export_adapter(tmp_path / "a.safetensors", tmp_path / "a.ts", "torchscript")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = adaptation.network.eval()(image)
        torch.testing.assert_close(torch.jit.load(done.path)(image), expected, rtol=1e-4, atol=1e-3)
    told = read_metadata(done.path)
    assert (told["multiclass_head"], told["mask_tokens"], told["trained_pixel_scale"]) == ("token_set", 3, 1)
    assert told["labels"] == ["background", "class 1", "class 2"]
