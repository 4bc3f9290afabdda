"""SAM 2's image part: equal to transformers' own, under the package's contract, from both formats of its files."""

import importlib
import sys

import pytest
import torch
from safetensors.torch import save_file

from topolora_monai.adapters import adapt, load_adapter, merge, preset_config, save_adapter
from topolora_monai.errors import CheckpointError, ConfigError
from topolora_monai.networks import build_network
from topolora_monai.networks.sam2 import Sam2ImageEncoder
from topolora_monai.weights import KNOWN_CHECKPOINTS, convert_checkpoint, fingerprint, verify_checkpoint

transformers = pytest.importorskip("transformers", minversion="4.56")

SIDE = 128
LETTERS = {"tiny": "t", "small": "s", "base_plus": "b", "large": "l"}
# Parameters of the whole model in the official repository's table, in millions; the video part is 7.5 of them.
MILLIONS = {"tiny": 38.9, "small": 46.0, "base_plus": 80.8, "large": 224.4}
# Size, window of each block, blocks with global attention, heads of the first stage, side of the position table.
SETTINGS = [
    ("tiny", [8] * 2 + [4] * 2 + [14] * 7 + [7], {5, 7, 9}, 1, 7),
    ("small", [8] * 2 + [4] * 2 + [14] * 11 + [7], {7, 10, 13}, 1, 7),
    ("base_plus", [8] * 3 + [4] * 3 + [14] * 16 + [7] * 2, {12, 16, 20}, 2, 14),
    ("large", [8] * 3 + [4] * 6 + [16] * 36 + [8] * 3, {23, 33, 43}, 2, 7),
]


@pytest.fixture(scope="module")
def reference():
    """transformers' SAM 2 (tiny), every tensor random, for images of SIDE pixels."""
    config = transformers.Sam2Config()
    config.vision_config.backbone_feature_sizes = [[SIDE // step] * 2 for step in (4, 8, 16)]
    config.prompt_encoder_config.image_size = SIDE
    config.mask_decoder_config.dynamic_multimask_via_stability = False
    model = transformers.Sam2Model(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.05 * noise)
        model.shared_image_embedding.positional_embedding.copy_(
            model.prompt_encoder.shared_embedding.positional_embedding
        )
    return model


@pytest.fixture(scope="module")
def transformers_file(reference, tmp_path_factory):
    """As the Hub has it, with tensors of the video part."""
    video = {"memory_attention.layers.0.linear1.weight": torch.zeros(2), "no_object_pointer": torch.zeros(1, 256)}
    state = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    save_file(state | video, path)
    return path


@pytest.fixture(scope="module")
def official_file(reference, tmp_path_factory):
    """As the official repository has it, with tensors of the video part."""
    path = tmp_path_factory.mktemp("official") / "sam2.1_hiera_tiny.pt"
    video = {
        "maskmem_tpos_enc": torch.zeros(7, 1, 1, 64),
        "no_mem_pos_enc": torch.zeros(1, 1, 256),
        "no_obj_ptr": torch.zeros(1, 256),
        "no_obj_embed_spatial": torch.zeros(1, 64),
        "mask_downsample.weight": torch.zeros(1, 1, 4, 4),
        "memory_attention.layers.0.self_attn.q_proj.weight": torch.zeros(2),
        "memory_encoder.fuser.layers.0.gamma": torch.zeros(2),
        "obj_ptr_proj.layers.0.weight": torch.zeros(2),
        "obj_ptr_tpos_proj.weight": torch.zeros(2),
    }
    torch.save({"model": official_state(reference.state_dict()) | video}, path)
    return path


def official_state(state):
    """The tensors of transformers' tiny model under the names that the official source code gives them."""
    modules = {**encoder_modules(), **prompt_modules(), **decoder_modules()}
    pairs = {
        f"{official}.{kind}": f"{here}.{kind}" for official, here in modules.items() for kind in ("weight", "bias")
    }
    for table in ("pos_embed", "pos_embed_window"):
        pairs[f"image_encoder.trunk.{table}"] = f"vision_encoder.backbone.{table}"
    pairs["no_mem_embed"] = "no_memory_embedding"
    table = "prompt_encoder.shared_embedding.positional_embedding"
    pairs["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = table
    for name in ("no_mask_embed", "not_a_point_embed"):
        pairs[f"sam_prompt_encoder.{name}.weight"] = f"prompt_encoder.{name}.weight"
    for name in ("iou_token", "mask_tokens", "obj_score_token"):
        pairs[f"sam_mask_decoder.{name}.weight"] = f"mask_decoder.{name}.weight"

    points = "prompt_encoder.point_embed.weight"
    assert {*pairs.values(), points, "shared_image_embedding.positional_embedding"} == state.keys()
    renamed = {official: state[here].clone() for official, here in pairs.items()}
    rows = {
        f"sam_prompt_encoder.point_embeddings.{kind}.weight": state[points][kind, None].clone() for kind in range(4)
    }
    return renamed | rows


def encoder_modules():
    """Official to transformers' names of what has a weight and a bias in the image encoder."""
    trunk, backbone = "image_encoder.trunk", "vision_encoder.backbone"
    modules = {f"{trunk}.patch_embed.proj": f"{backbone}.patch_embed.projection"}
    parts = {"attn.qkv": "attn.qkv", "attn.proj": "attn.proj", "norm1": "layer_norm1", "norm2": "layer_norm2"}
    parts |= {"mlp.layers.0": "mlp.proj_in", "mlp.layers.1": "mlp.proj_out"}
    for block in range(12):
        here = parts | ({"proj": "proj"} if block in (1, 3, 10) else {})  # the first of each stage that halves the grid
        modules |= {f"{trunk}.blocks.{block}.{a}": f"{backbone}.blocks.{block}.{b}" for a, b in here.items()}
    return modules | {f"image_encoder.neck.convs.{i}.conv": f"vision_encoder.neck.convs.{i}" for i in range(4)}


def prompt_modules():
    """The same for the prompt encoder."""
    layers = {0: "conv1", 1: "layer_norm1", 3: "conv2", 4: "layer_norm2", 6: "conv3"}
    return {
        f"sam_prompt_encoder.mask_downscaling.{i}": f"prompt_encoder.mask_embed.{name}" for i, name in layers.items()
    }


def decoder_modules():
    """The same for the mask decoder."""
    modules = {"conv_s0": "conv_s0", "conv_s1": "conv_s1"}
    modules |= {
        f"output_upscaling.{i}": f"upscale_{name}" for i, name in {0: "conv1", 1: "layer_norm", 3: "conv2"}.items()
    }
    for head in ("iou_prediction_head", "pred_obj_score_head", *(f"output_hypernetworks_mlps.{i}" for i in range(4))):
        modules |= {
            f"{head}.layers.{i}": f"{head}.{name}" for i, name in enumerate(("proj_in", "layers.0", "proj_out"))
        }
    attentions = ["transformer.final_attn_token_to_image"]
    for layer in ("transformer.layers.0", "transformer.layers.1"):
        modules |= {f"{layer}.norm{i}": f"{layer}.layer_norm{i}" for i in range(1, 5)}
        modules |= {f"{layer}.mlp.layers.0": f"{layer}.mlp.proj_in", f"{layer}.mlp.layers.1": f"{layer}.mlp.proj_out"}
        kinds = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
        attentions += [f"{layer}.{kind}" for kind in kinds]
    for attention in attentions:
        modules |= {f"{attention}.{name}": f"{attention}.{name}" for name in ("q_proj", "k_proj", "v_proj")}
        modules[f"{attention}.out_proj"] = f"{attention}.o_proj"
    modules["transformer.norm_final_attn"] = "transformer.layer_norm_final_attn"
    return {f"sam_mask_decoder.{official}": f"mask_decoder.{here}" for official, here in modules.items()}


@pytest.fixture(scope="module")
def network(transformers_file):
    return build_network("sam2_t", weights=transformers_file, image_size=SIDE, fit="squash")


def on_meta(network_name):
    with torch.device("meta"):
        return build_network(network_name)


class TestEquality:
    @pytest.mark.parametrize("size", [(SIDE, SIDE), (64, 160), (224, 96)])
    def test_encoder_gives_what_transformers_gives(self, network, reference, size):
        """On grids that do and do not divide into windows; the embedding carries the no-memory term."""
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            found = network.image_encoder(image)
            quarter, eighth, sixteenth = reference.vision_encoder(image).fpn_hidden_states
        sixteenth = sixteenth + reference.no_memory_embedding.reshape(1, -1, 1, 1)
        for level, expected in zip(found, (sixteenth, eighth, quarter), strict=True):
            torch.testing.assert_close(level, expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("size", LETTERS)
    def test_every_size_has_transformers_layers(self, size):
        """Sizes by the table of the official repository, which counts the video part as well."""
        with torch.device("meta"):
            network = build_network(f"sam2_{LETTERS[size]}")
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        assert millions + 7.5 == pytest.approx(MILLIONS[size], abs=0.1)

    @pytest.mark.parametrize(("size", "windows", "everywhere", "heads", "table"), SETTINGS)
    def test_settings_of_every_size(self, size, windows, everywhere, heads, table):
        """As the official repository configures them; a stage's first block has the window of the stage before."""
        with torch.device("meta"):
            backbone = Sam2ImageEncoder(size).backbone
        expected = [0 if index in everywhere else window for index, window in enumerate(windows)]
        assert [block.window_size for block in backbone.blocks] == expected
        assert backbone.blocks[0].attn.num_attention_heads == heads
        assert backbone.blocks[-1].attn.num_attention_heads == 8 * heads
        assert backbone.pos_embed.shape[2:] == (table, table)

    @pytest.mark.parametrize("size", ["small", "base_plus"])
    def test_other_sizes_compute_as_transformers(self, size):
        encoder = Sam2ImageEncoder(size).eval()
        model = transformers.Sam2VisionModel(_model_config(encoder)).eval()
        own = {name: tensor for name, tensor in encoder.state_dict().items() if name != "no_memory_embedding"}
        model.load_state_dict(own)
        image = torch.randn(1, 3, 64, 96)
        with torch.no_grad():
            expected = model(image).fpn_hidden_states
            for level, other in zip(encoder(image), reversed(expected), strict=True):
                torch.testing.assert_close(level, other, rtol=1e-5, atol=1e-5)

    def test_masks_of_a_click_are_those_of_transformers(self, network, reference):
        """The whole way: normalisation, click, decoder with its skips, up to the low-resolution logits."""
        image = torch.rand(1, 3, SIDE, SIDE)
        point, label = torch.tensor([[[40.0, 90.0]]]), torch.ones(1, 1)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        with torch.no_grad():
            found = network(image, points=point, point_labels=label)
            expected = reference(
                pixel_values=(image - mean) / std,
                input_points=point[None],
                input_labels=label[None].int(),
                multimask_output=False,
            ).pred_masks[:, 0]
        expected = torch.nn.functional.interpolate(expected, size=(SIDE, SIDE), mode="bilinear")
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    def test_activation_checkpointing_changes_no_value(self, network, transformers_file):
        lean = build_network(
            "sam2_t", weights=transformers_file, image_size=SIDE, fit="squash", activation_checkpointing=True
        )
        image = torch.rand(1, 3, 60, 90)
        gradients = []
        for each in (network, lean):
            each.zero_grad()
            each(image).square().mean().backward()
            gradients.append(each.image_encoder.backbone.blocks[0].mlp.proj_in.weight.grad)
            each.zero_grad()
        torch.testing.assert_close(gradients[0], gradients[1])


def _model_config(encoder):
    blocks = encoder.backbone.config
    return transformers.Sam2VisionConfig(backbone_config=blocks, backbone_channel_list=blocks.embed_dim_per_stage[::-1])


class TestFiles:
    def test_both_formats_give_the_same_network(self, network, official_file):
        other = build_network("sam2_t", weights=official_file, image_size=SIDE)
        assert fingerprint(other.state_dict()) == fingerprint(network.state_dict())

    @pytest.mark.parametrize("kind", ["official_file", "transformers_file"])
    def test_verified_with_the_video_part_left_out(self, kind, request):
        report = verify_checkpoint(request.getfixturevalue(kind), on_meta)
        assert report.network_name == "sam2_t"
        assert any(name.startswith("memory_attention.") for name in report.left_out)
        assert not [name for name in report.left_out if "encoder.b" in name or "mask_decoder" in name]

    def test_converted(self, network, official_file, tmp_path):
        header = convert_checkpoint(official_file, tmp_path / "a.safetensors")
        assert header["network_name"] == "sam2_t"
        other = build_network("sam2_t", weights=tmp_path / "a.safetensors", image_size=SIDE)
        assert fingerprint(other.state_dict()) == fingerprint(network.state_dict())

    @pytest.mark.parametrize("name", ["image_encoder.trunk.pos_embed", "sam_mask_decoder.conv_s0.bias", "no_mem_embed"])
    def test_a_missing_tensor_is_named(self, name, official_file, tmp_path):
        state = torch.load(official_file)["model"]
        del state[name]
        torch.save({"model": state}, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=r"missing (image_encoder|mask_decoder)\."):
            build_network("sam2_t", weights=tmp_path / "a.pt")

    def test_of_another_size(self, official_file):
        with pytest.raises(CheckpointError, match=r"not of base sam2_s(.|\n)*blocks\.1[2-5]"):
            build_network("sam2_s", weights=official_file)

    @pytest.mark.parametrize("size", LETTERS)
    def test_registered_sizes_are_plausible(self, size):
        """4 bytes a parameter of the whole model, to the table's rounding."""
        known = KNOWN_CHECKPOINTS[f"sam2.1_hiera_{size}"]
        assert known.network_name == f"sam2_{LETTERS[size]}"
        assert known.size == pytest.approx(4e6 * MILLIONS[size], rel=5e-3)


class TestContract:
    @pytest.mark.parametrize(
        ("size", "channels", "classes", "fit"), [((50, 70), 1, 1, "squash"), ((140, 33), 5, 3, "pad")]
    )
    def test_any_size_channels_and_classes(self, size, channels, classes, fit):
        network = build_network("sam2_t", image_size=64, in_channels=channels, out_channels=classes, fit=fit)
        assert network(torch.rand(2, channels, *size)).shape == (2, classes, *size)
        assert network.encode(torch.rand(1, channels, *size)).shape == (1, 256, 4, 4)

    def test_images_of_a_batch_do_not_mix(self, network):
        images = torch.rand(2, 3, 90, 60)
        with torch.no_grad():
            together = network(images)
            torch.testing.assert_close(together[1:], network(images[1:]), rtol=1e-4, atol=1e-5)

    def test_classes_start_alike(self, transformers_file, network):
        several = build_network("sam2_t", weights=transformers_file, image_size=SIDE, out_channels=3)
        assert torch.equal(several.mask_decoder.class_tokens[2], network.mask_decoder.mask_tokens.weight[0])

    def test_finer_maps_reach_the_logits(self, network):
        """Without its skips the decoder answers otherwise: they are in use, both of them."""
        image = torch.rand(1, 3, SIDE, SIDE)
        with torch.no_grad():
            whole = network(image)
            for skip in (network.mask_decoder.conv_s0, network.mask_decoder.conv_s1):
                kept = skip.weight.clone()
                skip.weight.zero_()
                assert not torch.allclose(network(image), whole, atol=1e-4)
                skip.weight.copy_(kept)

    @pytest.mark.parametrize("image_size", [48, 100, 0])
    def test_impossible_image_size(self, image_size):
        with pytest.raises(ConfigError, match="multiple of 32"):
            build_network("sam2_t", image_size=image_size)

    def test_unknown_size(self):
        with pytest.raises(ConfigError, match="did you mean tiny"):
            Sam2ImageEncoder("tyny")

    def test_without_transformers(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ConfigError, match=r"transformers 4\.56 or later(.|\n)*halted(.|\n)*topolora_monai\[sam2\]"):
            build_network("sam2_t")

    def test_transformers_without_sam2(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers.models.sam2", None)
        with pytest.raises(ConfigError, match=r"transformers 4\.56 or later(.|\n)*transformers\.models\.sam2"):
            build_network("sam2_t")


class TestAdaptation:
    @pytest.mark.parametrize("targets", ["mlp", "qkv", "proj"])
    def test_lora_finds_the_linears_of_every_block(self, targets, monkeypatch):
        module = importlib.import_module("topolora_monai.adapters.adapt")
        monkeypatch.setattr(module, "fingerprint", lambda _: "")  # there are no values to hash
        with torch.device("meta"):
            adaptation = adapt(build_network("sam2_t"), preset_config("lora", lora={"targets": [targets]}))
        adapted = {name.split(".lora_")[0] for name in adaptation.trainable() if ".lora_" in name}
        assert len(adapted) == (24 if targets == "mlp" else 12)

    def test_trained_parameters_get_gradients(self):
        network = build_network("sam2_t", image_size=64)
        adaptation = adapt(network, preset_config("topolora"))
        network(torch.rand(2, 3, 64, 64)).square().mean().backward()
        assert [name for name, p in adaptation.trainable().items() if p.grad is None] == []

    def test_adapter_file_and_merge(self, tmp_path):
        image = torch.rand(1, 3, 64, 64)
        adaptation = adapt(build_network("sam2_t", image_size=64), preset_config("topolora"))
        with torch.no_grad():
            for parameter in adaptation.trainable().values():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
            expected = adaptation.network(image)
            save_adapter(adaptation, tmp_path / "a.safetensors")
            again = load_adapter(build_network("sam2_t", image_size=64), tmp_path / "a.safetensors").network
            torch.testing.assert_close(again(image), expected)
            torch.testing.assert_close(merge(again)(image), expected, rtol=1e-4, atol=1e-5)
