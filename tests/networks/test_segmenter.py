"""The network contract: any size, any channels, prompts, export, and SAM's own pre- and postprocessing."""

import pytest
import torch
from segment_anything.modeling import Sam

from topolora_monai.errors import ConfigError
from topolora_monai.networks import build_network


@pytest.mark.parametrize("size", [(50, 70), (64, 64), (97, 33), (130, 200), (1, 40)])
def test_logits_have_the_input_size(tiny_network, size):
    with torch.no_grad():
        logits = tiny_network(torch.rand(1, 3, *size))
    assert logits.shape == (1, 1, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_batch_equals_singles(fit):
    network = build_network("vit_tiny_test", image_size=64, fit=fit)
    image = torch.rand(3, 3, 40, 60)
    with torch.no_grad():
        batch = network(image)
        singles = torch.cat([network(one[None]) for one in image])
    torch.testing.assert_close(batch, singles, rtol=1e-4, atol=1e-5)
    assert batch.std() > 0


def test_one_channel_equals_grey_colour(tiny_network):
    grey = build_network("vit_tiny_test", image_size=64, in_channels=1)
    image = torch.rand(1, 1, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(image), tiny_network(image.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_many_channels_are_mixed_by_a_trainable_layer(channels):
    network = build_network("vit_tiny_test", image_size=64, in_channels=channels)
    image = torch.rand(1, channels, 64, 64)
    logits = network(image)
    logits.mean().backward()
    assert network.channel_mixer.weight.grad.abs().min() > 0
    weights = network.channel_mixer.weight.detach()[:, :, 0, 0]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert (weights.sum(dim=0) > 0).all()  # no channel is ignored


def test_wrong_number_of_channels_is_refused(tiny_network):
    with pytest.raises(ConfigError, match="in_channels"):
        tiny_network(torch.rand(1, 4, 64, 64))


@pytest.mark.parametrize("size", [100, 0, -16])
def test_impossible_image_size_is_refused(size):
    with pytest.raises(ConfigError, match="multiple of 16"):
        build_network("vit_tiny_test", image_size=size)


def test_unknown_fit_is_refused():
    with pytest.raises(ConfigError, match="fit"):
        build_network("vit_tiny_test", image_size=64, fit="stretch")


class TestAgainstSam:
    """A ``segment_anything`` Sam over the same modules: its preprocessing, prompts and postprocessing."""

    SIDE = 64

    @pytest.fixture
    def pair(self):
        network = build_network("vit_tiny_test", image_size=self.SIDE)
        original = build_network("vit_tiny_test", image_size=self.SIDE)
        encoder, decoder = original.image_encoder, original.mask_decoder
        encoder.img_size = self.SIDE
        original.prompt_encoder.image_embedding_size = (self.SIDE // 16, self.SIDE // 16)
        original.prompt_encoder.input_image_size = (self.SIDE, self.SIDE)

        class Decoder(torch.nn.Module):
            def forward(self, *, image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, **_):
                masks, _ = decoder(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
                return masks, torch.zeros(1, 1)

        sam = Sam(encoder, original.prompt_encoder, Decoder())
        sam.mask_threshold = -torch.inf
        return network, sam

    def expected(self, sam, image, **prompts):
        record = {"image": image[0] * 255, "original_size": image.shape[-2:], **prompts}
        low_res = sam([record], multimask_output=False)[0]["low_res_logits"]
        return sam.postprocess_masks(low_res, image.shape[-2:], image.shape[-2:])

    def test_padded_image_without_prompt(self, pair):
        network, sam = pair
        image = torch.rand(1, 3, 48, 64)
        with torch.no_grad():
            torch.testing.assert_close(network(image), self.expected(sam, image), rtol=1e-4, atol=1e-5)

    def test_points_and_boxes(self, pair):
        network, sam = pair
        image = torch.rand(1, 3, 48, 64)
        points, labels = torch.tensor([[[10.0, 20.0], [50.0, 30.0]]]), torch.tensor([[1, 0]])
        box = torch.tensor([[5.0, 6.0, 40.0, 44.0]])
        with torch.no_grad():
            clicked = network(image, points=points, point_labels=labels)
            boxed = network(image, boxes=box)
            expected = self.expected(sam, image, point_coords=points, point_labels=labels)
            torch.testing.assert_close(clicked, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(boxed, self.expected(sam, image, boxes=box), rtol=1e-4, atol=1e-5)
            assert (clicked - network(image)).abs().max() > 1e-4

    def test_prompts_follow_the_image_when_it_is_enlarged(self, pair):
        network, _ = pair
        image = torch.rand(1, 3, 32, 32)
        double = torch.nn.functional.interpolate(image, size=(64, 64), mode="bilinear", antialias=True)
        labels = torch.tensor([[1]])
        network.restore = lambda logits, *_: logits  # compare before the answer is resized
        with torch.no_grad():
            small = network(image, points=torch.tensor([[[7.0, 9.0]]]), point_labels=labels)
            large = network(double, points=torch.tensor([[[14.5, 18.5]]]), point_labels=labels)
            elsewhere = network(double, points=torch.tensor([[[7.0, 9.0]]]), point_labels=labels)
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-5)
        assert (elsewhere - large).abs().max() > 1e-4

    def test_mask_prompt_changes_the_answer(self, pair):
        network, _ = pair
        image = torch.rand(1, 3, 48, 64)
        with torch.no_grad():
            plain, hinted = network(image), network(image, mask_prompt=torch.randn(1, 1, 48, 64))
        assert (plain - hinted).abs().max() > 1e-4

    def test_points_without_labels_are_refused(self, pair):
        with pytest.raises(ConfigError, match="come together"):
            pair[0](torch.rand(1, 3, 64, 64), points=torch.zeros(1, 1, 2))


def test_squash_differs_from_pad_only_for_oblong_images():
    pad, squash = (build_network("vit_tiny_test", image_size=64, fit=fit) for fit in ("pad", "squash"))
    with torch.no_grad():
        square, oblong = torch.rand(1, 3, 50, 50), torch.rand(1, 3, 40, 64)
        torch.testing.assert_close(pad(square), squash(square))
        assert (pad(oblong) - squash(oblong)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["vit_tiny_test", "vit_t"])
def test_export_and_trace_parity(name):
    network = build_network(name, image_size=64)
    image = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        expected = network(image)
        exported = torch.export.export(network, (image,)).module()
        traced = torch.jit.trace(network, image, check_trace=False)
        torch.testing.assert_close(exported(image), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(traced(image), expected, rtol=1e-4, atol=1e-5)
