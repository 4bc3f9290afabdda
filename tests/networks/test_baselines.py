import copy
import math
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from topolora_monai.errors import CheckpointError, ConfigError
from topolora_monai.losses import TopologyLoss
from topolora_monai.networks.baselines import (
    BASELINE_NAMES,
    BaselineSegmenter,
    build_baseline,
)
from topolora_monai.networks.baselines.mask2former import Queries, merge_queries
from topolora_monai.networks.baselines.registry import _PooledBatchNorm
from topolora_monai.networks.training_loss import FirstStageLoss, MatchingLoss, network_loss

for library in ("segmentation_models_pytorch", "transformers"):
    pytest.importorskip(library)

# With three channels and one class; published are 24.4 million for the first and 68 thousand for Little W-Net.
COUNTS = {
    "unet_resnet34": 24_436_369,
    "deeplabv3plus_resnet50": 26_677_585,
    "segformer_b0": 3_714_401,
    "segformer_b2": 24_722_369,
    "mask2former_swin_t": 47_401_340,
    "little_wnet": 68_482,
    "dynunet": 20_611_713,
}


@pytest.fixture(scope="module", params=BASELINE_NAMES)
def network(request):
    return build_baseline(request.param)


@pytest.fixture(scope="module")
def fresh_mask2former():
    return build_baseline("mask2former_swin_t")


@pytest.fixture
def mask2former(fresh_mask2former):
    return copy.deepcopy(fresh_mask2former)


@pytest.fixture
def little_wnet():
    return build_baseline("little_wnet")


class TestContract:
    @pytest.mark.parametrize(
        ("name", "channels", "classes"),
        [*((name, 6, 2) for name in BASELINE_NAMES), ("unet_resnet34", 1, 1), ("segformer_b0", 1, 1)],
    )
    def test_any_number_of_channels_and_classes(self, name, channels, classes):
        network = build_baseline(name, in_channels=channels, out_channels=classes)
        with torch.no_grad():
            logits = network(torch.rand(1, channels, 33, 47, dtype=torch.float64))
        assert logits.shape == (1, classes, 33, 47) and logits.dtype == torch.float32 and logits.isfinite().all()

    def test_an_image_does_not_depend_on_its_batch(self, network):
        images = torch.rand(2, 3, 40, 50)
        with torch.no_grad():
            together, alone = network(images), torch.cat([network(images[:1]), network(images[1:])])
        assert (alone[0] - alone[1]).abs().max() > 1e-3  # else equality would say nothing
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_odd_sizes_are_extended_by_their_last_pixels(self, network):
        image = torch.rand(1, 3, 69, 65)
        height, width = (96, 96) if network.stride == 32 else (72, 68)
        extended = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (0, height - 69), (0, width - 65)), "edge"))
        with torch.no_grad():
            torch.testing.assert_close(network(image), network(extended)[..., :69, :65], rtol=1e-4, atol=1e-4)

    def test_coarse_logits_return_to_their_pixels(self):
        network = BaselineSegmenter(nn.AvgPool2d(4), "average", in_channels=1, stride=16)
        ramp = torch.linspace(0, 1, 47).expand(1, 1, 33, 47)  # what averaging and interpolating leave as it is
        expected = BaselineSegmenter(nn.Identity(), "same", in_channels=1, stride=16)(ramp)
        torch.testing.assert_close(network(ramp)[..., 2:41], expected[..., 2:41])
        torch.testing.assert_close(network(ramp.mT)[..., 2:41, :], expected.mT[..., 2:41, :])

    def test_normalises_by_imagenets_statistics(self):
        means = [0.485, 0.456, 0.406]
        colour = torch.tensor(means).view(1, 3, 1, 1).expand(1, 3, 32, 32)
        assert BaselineSegmenter(nn.Identity(), "same", 3, 16)(colour).abs().max() < 1e-6
        grey = torch.full((1, 2, 32, 32), sum(means) / 3 + (0.229 + 0.224 + 0.225) / 3)
        torch.testing.assert_close(BaselineSegmenter(nn.Identity(), "same", 2, 16)(grey), torch.ones(1, 2, 32, 32))

    def test_number_of_parameters_of_random_weights(self, network):
        assert not network.pretrained
        assert sum(p.numel() for p in network.parameters()) == COUNTS[network.base_name]

    def test_gradient_reaches_every_parameter(self, network):
        network = copy.deepcopy(network)  # in evaluation: nothing is dropped by chance
        for parameter in network.parameters():
            parameter.data += 0.01 * torch.randn_like(parameter)  # layers that start at zero let nothing through
        logits = network(torch.rand(2, 3, 64, 96))
        (logits * torch.randn_like(logits)).sum().backward()
        assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]

    def test_one_small_image_is_enough_to_train_on(self, network):
        network = copy.deepcopy(network).train()
        logits = network(torch.rand(1, 3, 20, 20))
        nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())

    @pytest.mark.parametrize("network", ["segformer_b0", "dynunet", "little_wnet"], indirect=True)
    def test_exported_graph_gives_the_same_logits(self, network):
        images = torch.rand(2, 3, 40, 50)
        with torch.no_grad():
            exported = torch.export.export(network, (torch.rand(2, 3, 40, 50),)).module()
            torch.testing.assert_close(exported(images), network(images))

    def test_wrong_number_of_channels(self, little_wnet):
        with pytest.raises(ConfigError, match=r"\(B, 3, H, W\)"):
            little_wnet(torch.rand(1, 4, 32, 32))


class TestBuildBaseline:
    def test_seed_decides_the_weights_and_leaves_the_generator_alone(self):
        before = torch.get_rng_state()
        first, same, other = (build_baseline("segformer_b0", seed=seed).state_dict() for seed in (0, 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(first[name], same[name]) for name in first)
        assert not all(torch.equal(first[name], other[name]) for name in first)

    def test_unknown_name(self):
        with pytest.raises(ConfigError, match="did you mean unet_resnet34"):
            build_baseline("unet_resnet_34")

    def test_impossible_channels(self):
        with pytest.raises(ConfigError, match="positive"):
            build_baseline("dynunet", in_channels=0)

    @pytest.mark.parametrize(
        ("name", "library"),
        [("unet_resnet34", "segmentation_models_pytorch"), ("mask2former_swin_t", "transformers")],
    )
    def test_missing_library_names_the_extra(self, name, library, monkeypatch):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ConfigError, match=rf"{library}(.|\n)*topolora_monai\[baselines\]"):
            build_baseline(name)


class TestEncoderWeights:
    @pytest.fixture(params=["unet_resnet34", "segformer_b0"])
    def name(self, request):
        return request.param

    @staticmethod
    def _encoder_state(name, prefix=""):
        state = build_baseline(name, seed=7).network.encoder.state_dict()
        return {prefix + key: value.clone() for key, value in state.items()}

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_loads_from_a_file_and_says_so(self, name, suffix, tmp_path):
        path = tmp_path / f"encoder{suffix}"
        state = self._encoder_state(name, "backbone.")
        save = save_file if suffix == ".safetensors" else torch.save
        save(state | {"head.weight": torch.zeros(10, 4)}, path)  # a classifier, as in published files
        network = build_baseline(name, encoder_weights=path)
        loaded = network.network.encoder.state_dict()
        assert loaded and all(torch.equal(loaded[key], state[f"backbone.{key}"]) for key in loaded)
        assert network.pretrained

    def test_further_channels_share_the_pretrained_filters(self, name, tmp_path):
        path = tmp_path / "encoder.safetensors"
        save_file(self._encoder_state(name), path)
        colour, twice = (build_baseline(name, encoder_weights=path, in_channels=c).network.encoder for c in (3, 6))
        image = torch.rand(1, 3, 64, 64)
        first, doubled = colour.eval()(image)[1], twice.eval()(torch.cat([image, image], dim=1))[1]
        if first.numel() == 0:  # SegFormer has no features at half the resolution
            first, doubled = colour(image)[2], twice(torch.cat([image, image], dim=1))[2]
        torch.testing.assert_close(doubled, first, rtol=1e-4, atol=1e-4)

    def test_file_of_another_encoder(self, name, tmp_path):
        path = tmp_path / "encoder.pth"
        other = {"unet_resnet34": "deeplabv3plus_resnet50", "segformer_b0": "segformer_b2"}[name]
        torch.save(self._encoder_state(other), path)
        with pytest.raises(CheckpointError, match="does not hold this network's encoder"):
            build_baseline(name, encoder_weights=path)

    def test_file_that_lacks_a_tensor(self, name, tmp_path):
        state = self._encoder_state(name)
        lost = [key for key in state if key.endswith("weight")][3]
        del state[lost]
        torch.save(state, tmp_path / "encoder.pth")
        with pytest.raises(CheckpointError, match=lost.replace(".", r"\.")):
            build_baseline(name, encoder_weights=tmp_path / "encoder.pth")

    def test_code_in_a_file_is_not_run(self, tmp_path):
        torch.save({"conv1.weight": print}, tmp_path / "encoder.pth")
        with pytest.raises(CheckpointError, match="more than tensors"):
            build_baseline("unet_resnet34", encoder_weights=tmp_path / "encoder.pth")

    def test_damaged_file(self, tmp_path):
        (tmp_path / "encoder.safetensors").write_bytes(b"\x10")
        with pytest.raises(CheckpointError, match="damaged"):
            build_baseline("unet_resnet34", encoder_weights=tmp_path / "encoder.safetensors")

    def test_swin_loads_under_its_published_names(self, mask2former, tmp_path):
        own = self._swin(mask2former)
        published = {self._published_name(key): value + 1 for key, value in own.items()}
        norm = {"swin.layernorm.weight": torch.ones(768), "swin.layernorm.bias": torch.zeros(768)}
        save_file(published | norm | {"classifier.weight": torch.zeros(10, 768)}, tmp_path / "swin.safetensors")
        network = build_baseline("mask2former_swin_t", encoder_weights=tmp_path / "swin.safetensors")
        loaded = self._swin(network)
        assert network.pretrained and loaded
        assert all(torch.equal(loaded[key], own[key] + 1) for key in own)

    def test_swin_file_that_lacks_a_tensor(self, mask2former, tmp_path):
        own = self._swin(mask2former)
        save_file({self._published_name(key): own[key] for key in list(own)[4:]}, tmp_path / "swin.safetensors")
        with pytest.raises(CheckpointError, match="missing"):
            build_baseline("mask2former_swin_t", encoder_weights=tmp_path / "swin.safetensors")

    @staticmethod
    def _swin(network):
        state = network.network.model.model.pixel_level_module.encoder.state_dict()
        return {key: value for key, value in state.items() if not key.startswith("hidden_states_norms.")}

    @staticmethod
    def _published_name(name):
        """Names in files of Swin as they have been published since 2022."""
        name = name.replace("attention.relative_position_bias.", "attention.self.")
        for new, old in {"q_proj": "query", "k_proj": "key", "v_proj": "value"}.items():
            name = name.replace(f"attention.{new}", f"attention.self.{old}")
        name = name.replace("attention.o_proj", "attention.output.dense")
        return name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")

    @pytest.mark.parametrize("name", ["unet_resnet34", "mask2former_swin_t"])
    def test_published_weights_out_of_reach(self, name, monkeypatch):
        import segmentation_models_pytorch
        import transformers

        def unreachable(*args, **kwargs):
            raise OSError("no connection")

        monkeypatch.setattr(segmentation_models_pytorch, "create_model", unreachable)
        monkeypatch.setattr(transformers.SwinBackbone, "from_pretrained", unreachable)
        with pytest.raises(ConfigError, match=r"neither in the cache nor within reach(.|\n)*no connection"):
            build_baseline(name, encoder_weights="imagenet")

    def test_published_weights_from_the_cache(self, name, monkeypatch, tmp_path):
        import segmentation_models_pytorch

        state = self._encoder_state(name)
        save_file(state, tmp_path / "model.safetensors")
        monkeypatch.setattr(
            segmentation_models_pytorch.encoders, "hf_hub_download", lambda *a, filename, **k: str(tmp_path / filename)
        )
        network = build_baseline(name, encoder_weights="imagenet")
        loaded = network.network.encoder.state_dict()
        assert network.pretrained and all(torch.equal(loaded[key], state[key]) for key in state)

    @pytest.mark.parametrize("name", ["dynunet", "little_wnet"])
    def test_network_without_pretrained_encoder(self, name):
        with pytest.raises(ConfigError, match="no pretrained encoder"):
            build_baseline(name, encoder_weights="imagenet")


class TestPooledBatchNorm:
    def test_single_values_are_normalised_by_stored_statistics(self):
        norm, reference = _PooledBatchNorm(4), nn.BatchNorm2d(4)
        for module in (norm, reference):
            module.running_mean.copy_(torch.arange(4.0))
            module.running_var.fill_(4.0)
        value = torch.rand(1, 4, 1, 1)
        torch.testing.assert_close(norm.train()(value), reference.eval()(value))
        torch.testing.assert_close(norm.running_mean, torch.arange(4.0))
        batch = torch.rand(3, 4, 1, 1)
        torch.testing.assert_close(norm.train()(batch), reference.train()(batch))
        torch.testing.assert_close(norm.running_mean, reference.running_mean)

    def test_stands_after_the_global_pooling_of_deeplab(self):
        network = build_baseline("deeplabv3plus_resnet50")
        assert sum(isinstance(module, _PooledBatchNorm) for module in network.modules()) == 1


class TestLittleWNet:
    def test_second_stage_sees_image_and_first_stage(self, little_wnet):
        wnet, image = little_wnet.network, torch.rand(1, 3, 32, 32)
        expected = wnet.second(torch.cat([image, wnet.first(image)], dim=1))
        torch.testing.assert_close(wnet(image), expected)
        wnet.first.head.bias.data += 1
        assert (wnet(image) - expected).abs().max() > 1e-3

    def test_sees_sixteen_pixels_and_more_around_each(self, little_wnet):
        image = torch.rand(1, 3, 64, 64, requires_grad=True)
        little_wnet.network.first(image)[0, 0, 32, 32].backward()
        rows = image.grad.abs().sum((0, 1, 3)).nonzero()
        assert rows.max() - rows.min() > 32

    def test_both_stages_are_trained_alike(self, little_wnet):
        image, label = torch.rand(1, 3, 30, 34), (torch.rand(1, 1, 30, 34) > 0.5).float()
        fov = (torch.rand(1, 1, 30, 34) > 0.2).float()
        plain = TopologyLoss({"bce": 1.0, "dice": 1.0})
        loss = FirstStageLoss(little_wnet, plain)
        little_wnet.train()
        logits = little_wnet(image)
        x = (image - little_wnet.mean) / little_wnet.std
        first = little_wnet.network.first(nn.functional.pad(x, (0, 2, 0, 2), mode="replicate"))[..., :30, :34]
        expected = plain(logits, label, mask=fov) + plain(first, label, mask=fov)
        torch.testing.assert_close(loss(logits, label, mask=fov, skeleton=None), expected)

    def test_keeps_nothing_unasked(self, little_wnet):
        little_wnet.train()(torch.rand(1, 3, 32, 32))
        with pytest.raises(ConfigError, match="kept nothing"):
            little_wnet.network.take()

    def test_loss_needs_a_training_step_of_its_own(self, little_wnet):
        loss = FirstStageLoss(little_wnet, nn.BCEWithLogitsLoss())
        logits = little_wnet.train()(torch.rand(1, 3, 32, 32))
        loss(logits, torch.zeros_like(logits))
        with pytest.raises(ConfigError, match="kept nothing"):
            loss(logits, torch.zeros_like(logits))
        little_wnet.eval()(torch.rand(1, 3, 32, 32))
        with pytest.raises(ConfigError, match="evaluation mode"):
            loss(logits, torch.zeros_like(logits))


class TestMergeQueries:
    def test_equals_a_slow_loop(self):
        classes, masks = 2 * torch.randn(2, 5, 4), 3 * torch.randn(2, 5, 3, 2)
        expected = np.zeros((2, 3, 3, 2))
        for b, k, y, x in np.ndindex(expected.shape):
            none = 1.0
            for q in range(5):
                exponents = np.exp(classes[b, q].double().numpy())
                none *= 1 - exponents[k] / exponents.sum() / (1 + math.exp(-masks[b, q, y, x]))
            expected[b, k, y, x] = math.log((1 - none) / none)
        np.testing.assert_allclose(merge_queries(classes, masks), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("mask", [-1e4, -40.0, 0.0, 40.0, 1e4])
    @pytest.mark.parametrize("confidence", [-1e3, 0.0, 1e3])
    def test_extremes_stay_finite_with_finite_gradients(self, mask, confidence):
        classes = torch.tensor([confidence, 0.0]).repeat(1, 100, 1).requires_grad_()
        masks = torch.full((1, 100, 2, 2), mask, requires_grad=True)
        logits = merge_queries(classes, masks)
        logits.sum().backward()
        assert logits.isfinite().all() and classes.grad.isfinite().all() and masks.grad.isfinite().all()

    def test_small_probabilities_keep_their_digits(self):
        logits = merge_queries(torch.tensor([[[50.0, 0.0]]]), torch.full((1, 1, 1, 1), -30.0))
        torch.testing.assert_close(logits.item(), -30.0, rtol=1e-5, atol=0)


class TestMatchingLoss:
    N_POINTS = 12544

    @staticmethod
    def _loss_of(network, label, classes, masks, auxiliary=(), mask=None):
        loss = MatchingLoss(network)
        network.train()
        network.network.keep(Queries(classes, masks, list(auxiliary)))
        return loss(torch.zeros_like(label), label, mask=mask).item()

    @staticmethod
    def _right_answer(masks):
        """Queries of which the first says "object", with the given mask, and the others "no object"."""
        classes = torch.tensor([-50.0, 50.0]).repeat(1, 5, 1)
        classes[:, 0] = -classes[:, 0]
        return classes, torch.cat([masks, torch.full_like(masks, -50.0).repeat(1, 4, 1, 1)], dim=1)

    def test_right_answer_costs_least(self, mask2former):
        label = torch.ones(1, 1, 64, 64)
        right = self._loss_of(mask2former, label, *self._right_answer(50 * label))
        assert right < 0.05 * self._loss_of(mask2former, label, *self._right_answer(-50 * label))

    def test_undecided_queries_cost_what_the_formulas_say(self, mask2former):
        n = self.N_POINTS
        one_layer = 2 * math.log(2) + 5 * math.log(2) + 5 * (1 - (n + 1) / (1.5 * n + 1))
        label, classes, masks = torch.ones(1, 1, 64, 64), torch.zeros(1, 5, 2), torch.zeros(1, 5, 16, 16)
        assert self._loss_of(mask2former, label, classes, masks) == pytest.approx(one_layer, rel=2e-3)
        layer = {"class_queries_logits": classes, "masks_queries_logits": masks}
        assert self._loss_of(mask2former, label, classes, masks, [layer]) == pytest.approx(2 * one_layer, rel=2e-3)

    def test_target_is_what_the_classes_in_view_cover(self, monkeypatch):
        network = build_baseline("mask2former_swin_t", out_channels=2)
        seen = {}
        monkeypatch.setattr(network.network.model, "get_loss_dict", lambda **given: seen.update(given) or {})
        label, fov = torch.ones(2, 2, 40, 50), torch.ones(2, 1, 40, 50)
        label[0, 0] = 0  # the first image holds the second class only
        fov[..., 10:20] = 0
        with pytest.raises(AttributeError):  # no losses to add up
            self._loss_of(network, label, torch.zeros(2, 5, 3), torch.zeros(2, 5, 16, 16), mask=fov).item()
        expected = torch.zeros(64, 64)  # extended by background
        expected[:40, :10] = expected[:40, 20:50] = 1
        assert [classes.tolist() for classes in seen["class_labels"]] == [[1], [0, 1]]
        assert [len(masks) for masks in seen["mask_labels"]] == [1, 2]
        assert all(torch.equal(mask, expected) for masks in seen["mask_labels"] for mask in masks)

    def test_image_without_any_object(self, mask2former):
        label, classes = torch.zeros(2, 1, 64, 64), torch.zeros(2, 5, 2)
        expected = 2 * math.log(2)  # only the class term is left
        assert self._loss_of(mask2former, label, classes, torch.zeros(2, 5, 16, 16)) == pytest.approx(expected)

    def test_three_steps_on_one_image_help(self, mask2former):
        image = torch.rand(1, 3, 64, 64)
        label = (image[:, :1] > 0.5).float()
        loss = network_loss(mask2former, nn.BCEWithLogitsLoss())
        optimizer = torch.optim.AdamW(mask2former.train().parameters(), lr=2e-4)
        values = []
        for _ in range(4):
            value = loss(mask2former(image), label)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[3] < 0.95 * values[0]

    def test_evaluation_does_not_need_it(self, mask2former):
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            before = mask2former(image)
            MatchingLoss(mask2former)
            torch.testing.assert_close(mask2former(image), before)


class TestNetworkLoss:
    def test_each_network_gets_its_own(self, mask2former, little_wnet):
        plain = nn.BCEWithLogitsLoss()
        assert isinstance(network_loss(mask2former, plain), MatchingLoss)
        assert network_loss(mask2former, plain, matching=False) is plain
        assert isinstance(network_loss(little_wnet, plain), FirstStageLoss)
        assert network_loss(build_baseline("segformer_b0"), plain) is plain

    def test_network_is_no_part_of_its_loss(self, mask2former, little_wnet):
        assert not list(MatchingLoss(mask2former).parameters())
        assert not list(FirstStageLoss(little_wnet, nn.BCEWithLogitsLoss()).parameters())
