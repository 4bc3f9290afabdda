"""Several classes: activations, the token set, its matching loss, and what adapter files carry of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from topolora_monai.adapters import adapt, load_adapter, preset_config, save_adapter
from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network, network_loss, probabilities
from topolora_monai.networks.mask_decoder import TokenOutput, merge_tokens
from topolora_monai.networks.training_loss import TokenSetLoss
from topolora_monai.weights import fingerprint

COMMON = {"network_name": "vit_tiny_test", "image_size": 64}
TOKENS = {**COMMON, "out_channels": 3, "multiclass_head": "token_set", "mask_tokens": 5}


@pytest.fixture
def token_network():
    return build_network(**TOKENS)


class TestProbabilities:
    def test_softmax_has_a_background_of_logit_zero(self):
        logits = torch.randn(2, 3, 4, 5)
        odds = logits.exp()
        expected = odds / (1 + odds.sum(dim=1, keepdim=True))
        torch.testing.assert_close(probabilities(logits, "softmax"), expected)
        torch.testing.assert_close(probabilities(logits[0], "softmax"), expected[0])

    def test_one_class_is_the_sigmoid_either_way(self):
        logits = 30 * torch.randn(1, 1, 8, 8)
        torch.testing.assert_close(probabilities(logits, "softmax"), probabilities(logits, "sigmoid"))

    def test_unknown_name(self):
        with pytest.raises(ConfigError, match="sigmoid"):
            probabilities(torch.zeros(1, 1, 1), "tanh")


class TestMergeTokens:
    def test_scores_of_the_paper(self):
        classes, masks = torch.randn(2, 4, 4), torch.randn(2, 4, 5, 6) - 3
        scores = torch.zeros(2, 3, 5, 6)
        for token in range(4):
            for k in range(3):
                share = classes[:, token].exp()[:, k] / classes[:, token].exp().sum(1)
                scores[:, k] += share[:, None, None] / (1 + (-masks[:, token]).exp())
        assert scores.sum(1).max() < 1
        torch.testing.assert_close(probabilities(merge_tokens(classes, masks), "softmax"), scores)

    def test_agreeing_tokens_share_the_pixel_in_proportion(self):
        classes = torch.tensor([0.75, 0.25, 1e-9]).log().expand(1, 6, 3)
        merged = probabilities(merge_tokens(classes, torch.full((1, 6, 1, 1), 30.0)), "softmax")
        assert merged.flatten().tolist() == pytest.approx([0.75, 0.25], abs=1e-5)

    def test_extremes_have_a_gradient(self):
        classes = torch.tensor([[[60.0, -60.0], [-60.0, 60.0]]], requires_grad=True)
        masks = torch.tensor([[90.0, -90.0], [90.0, -90.0]]).view(1, 2, 1, 2).requires_grad_()
        merged = merge_tokens(classes, masks)
        assert merged.isfinite().all()
        merged.sum().backward()
        assert classes.grad.isfinite().all()
        assert masks.grad.isfinite().all()


class TestTokenSet:
    def test_every_token_starts_as_token_zero(self, token_network):
        decoder = token_network.mask_decoder
        assert decoder.class_tokens.shape == (5, 192)
        assert all(torch.equal(token, decoder.mask_tokens.weight[0]) for token in decoder.class_tokens)

    def test_scores_come_from_the_tokens(self, token_network):
        """All tokens are copies, so with equal classes each class scores 5 / 4 of the first token's mask."""
        image = torch.rand(1, 3, 40, 64)
        alone = build_network(**COMMON)
        with torch.no_grad():
            alone.mask_decoder.class_tokens = token_network.mask_decoder.class_tokens
            masks = alone(image)
            token_network.mask_decoder.token_set.classifier.bias[-1] = 9  # nearly no object, so that nothing saturates
            found = probabilities(token_network(image), "softmax")
        assert found.shape == (1, 3, 40, 64)
        expected = 5 * masks.sigmoid()[:, :1] / (3 + math.exp(9))
        # Logits are enlarged after merging in one network and before in the other.
        torch.testing.assert_close(found, expected.expand_as(found), rtol=0.02, atol=1e-6)

    def test_one_class_and_no_token_set_have_no_new_parameter(self):
        one, several = build_network(**COMMON), build_network(**COMMON, multiclass_head="per_class", mask_tokens=3)
        assert one.state_dict().keys() == several.state_dict().keys()
        assert not any("token_set" in name or "class_tokens" in name for name in one.state_dict())

    def test_parameters_added(self, token_network):
        count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
        assert count(token_network) - count(build_network(**COMMON)) == 5 * 192 + 192 * 4 + 4

    def test_same_base_whatever_the_seed(self, tmp_path):
        torch.save(build_network(**COMMON).state_dict(), tmp_path / "base.pt")
        built = [build_network(**TOKENS, weights=tmp_path / "base.pt", seed=seed) for seed in (1, 2)]
        assert fingerprint(built[0].state_dict()) == fingerprint(built[1].state_dict())
        decoder = built[0].mask_decoder
        assert torch.equal(decoder.class_tokens[4], decoder.mask_tokens.weight[0])

    @pytest.mark.parametrize("preset", ["lora", "adapter_only"])
    def test_adapter_file_carries_tokens_and_classifier(self, token_network, preset, tmp_path):
        adaptation = adapt(token_network, preset_config(preset))
        assert {
            "mask_decoder.class_tokens",
            "mask_decoder.token_set.classifier.weight",
        } <= adaptation.trainable().keys()
        with torch.no_grad():
            for parameter in adaptation.trainable().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_adapter(adaptation, tmp_path / "adapter.safetensors")
        loaded = load_adapter(build_network(**TOKENS), tmp_path / "adapter.safetensors").network
        image = torch.rand(1, 3, 40, 50)
        with torch.no_grad():
            torch.testing.assert_close(loaded(image), token_network(image))

    def test_export(self, token_network):
        image = torch.rand(1, 3, 64, 64)
        exported = torch.export.export(token_network, (image,)).module()
        with torch.no_grad():
            torch.testing.assert_close(exported(image), token_network(image), rtol=1e-4, atol=1e-4)

    def test_refusals(self):
        with pytest.raises(ConfigError, match="per_class, token_set"):
            build_network(**COMMON, multiclass_head="tokens")
        with pytest.raises(ConfigError, match="mask_tokens"):
            build_network(**TOKENS | {"mask_tokens": 0})
        with pytest.raises(ConfigError, match="no mask tokens"):
            build_network("little_wnet", multiclass_head="token_set")


class TestTokenSetLoss:
    @pytest.fixture(autouse=True)
    def _library(self):
        pytest.importorskip("transformers")

    def loss_of(self, network, label, classes, masks, mask=None):
        loss = TokenSetLoss(network.train())
        network.mask_decoder.token_set.keep(TokenOutput(classes, masks))
        return loss(torch.zeros_like(label), label, mask=mask)

    def test_undecided_tokens_cost_what_the_formulas_say(self, token_network):
        label = torch.zeros(1, 3, 64, 64)
        label[:, 1] = 1
        points = 12544
        cost = self.loss_of(token_network, label, torch.zeros(1, 5, 4), torch.zeros(1, 5, 16, 16)).item()
        dice = 1 - (points + 1) / (1.5 * points + 1)
        assert cost == pytest.approx(10 * math.log(4) + 5 * math.log(2) + 5 * dice, rel=1e-3)

    def test_matching_is_the_cheapest(self, token_network):
        """Uniform masks have the same loss at whichever points, but near the border: an assignment by hand."""
        label, logits = torch.zeros(1, 3, 64, 64), torch.tensor([3.0, -2.0, 0.5, 1.0, -4.0])
        label[:, 0], label[:, 2] = 1, 1
        classes, n = torch.randn(1, 5, 4), 12544
        p = logits.sigmoid()
        entropy, dice = F.softplus(-logits), 1 - (2 * n * p + 1) / (n * p + n + 1)
        share = classes[0].softmax(-1)
        cost = torch.stack([5 * entropy + 5 * dice - 10 * share[:, k] for k in (0, 2)], 1)
        tokens, objects = linear_sum_assignment(cost.numpy())
        target = torch.full((5,), 3)
        target[tokens] = torch.tensor([0, 2])[objects]
        weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
        # Points that the library prefers lie near the border, where masks and target fade.
        expected = 10 * F.cross_entropy(classes[0], target, weight) + (5 * (entropy + dice))[tokens].sum() / 2
        masks = logits.view(1, 5, 1, 1).expand(1, 5, 16, 16)
        assert self.loss_of(token_network, label, classes, masks).item() == pytest.approx(expected.item(), rel=0.05)

    def test_outside_the_mask_nothing_is_learnt(self, token_network):
        label, mask = torch.ones(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
        mask[..., 32:] = 0
        masks = torch.zeros(1, 5, 16, 16, requires_grad=True)
        self.loss_of(token_network, label, torch.zeros(1, 5, 4), masks, mask).backward()
        assert masks.grad[..., :8].abs().sum() > 0
        assert masks.grad[..., 9:].abs().sum() == 0

    def test_masks_lie_on_the_image_they_are_of(self, token_network, monkeypatch):
        """An oblong image fills a part of the square that the decoder sees."""
        seen = {}
        loss = TokenSetLoss(token_network.train())
        monkeypatch.setattr(loss._matching, "forward", lambda **given: seen.update(given) or {})
        masks = torch.zeros(1, 5, 16, 16)
        masks[:, :, :8] = 7  # of the square of 64, the image is the upper half
        token_network.mask_decoder.token_set.keep(TokenOutput(torch.zeros(1, 5, 4), masks))
        label = torch.zeros(1, 3, 24, 48)
        label[:, 2, :5] = 1
        loss(torch.zeros_like(label), label)
        assert seen["masks_queries_logits"].shape == (1, 5, 24, 48)
        assert seen["masks_queries_logits"][:, :, :20].min() > 6.99
        assert [labels.tolist() for labels in seen["class_labels"]] == [[2]]
        assert torch.equal(seen["mask_labels"][0], label[0, 2:])

    def test_two_classes_are_learnt(self, token_network):
        image = torch.zeros(1, 3, 64, 64)
        label = torch.zeros(1, 3, 64, 64)
        image[..., :20, :], label[:, 0, :20] = 1, 1
        image[:, 0, 40:], label[:, 1, 40:] = 1, 1
        adapt(token_network.train(), preset_config("decoder_only"))
        loss = network_loss(token_network, torch.nn.BCEWithLogitsLoss())
        optimizer = torch.optim.AdamW([p for p in token_network.parameters() if p.requires_grad], lr=2e-3)
        right = []
        for _ in range(150):  # tokens that start equal need some to part
            optimizer.zero_grad()
            logits = token_network(image)
            loss(logits, label).backward()
            torch.nn.utils.clip_grad_norm_(token_network.parameters(), 1.0)
            optimizer.step()
            right.append(((probabilities(logits, "softmax") > 0.5) == (label > 0.5)).float().mean().item())
            if right[-1] > 0.95:
                break
        assert right[0] < 0.85
        assert max(right) > 0.95

    def test_only_for_a_token_set_that_wants_it(self, token_network):
        plain = torch.nn.BCEWithLogitsLoss()
        assert isinstance(network_loss(token_network, plain), TokenSetLoss)
        assert network_loss(token_network, plain, matching=False) is plain
        assert network_loss(build_network(**COMMON, out_channels=3), plain) is plain
        assert not list(TokenSetLoss(token_network).parameters())
