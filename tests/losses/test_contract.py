"""What every term keeps to: shapes, classes, masks, reductions, precisions, gradients."""

import pytest
import torch

from tests.losses.shapes import noisy_logits, several, tree
from topolora_monai.errors import ConfigError
from topolora_monai.losses import LOSS_TERMS, TopologyLoss, exact_skeleton

THINNING = ("cldice", "clce", "cbdice")
ITERATIONS = {name: {"iterations": 3} for name in THINNING}
POOLED = ("bce", "ce", "clce")  # their mean weighs by pixels
LEAST = {"cldice": 0.5, "cbdice": 0.5, "clce": 0.03}  # of a square missed whole, whose skeleton is short


def term(name, **options):
    """A term by name; cross entropy over classes always with a softmax."""
    return LOSS_TERMS[name](**ITERATIONS.get(name, {}) | options | ({"softmax": True} if name == "ce" else {}))


def example(name, size=24, batch=2):
    """Logits and target of one class, or of three that exclude each other for cross entropy over classes."""
    if name == "ce":
        return several(size=size, batch=batch)
    target = torch.cat([tree(size) if index % 2 else tree(size).transpose(2, 3) for index in range(batch)])
    target[0, ..., :3, :5] = 1
    logits = noisy_logits(target)
    if name in ("component_graph", "cbdice"):  # masks at 0.5 that are right cost nothing
        logits[..., 10:13, :] *= -1
    return logits, target


@pytest.fixture(params=sorted(LOSS_TERMS))
def name(request):
    return request.param


def test_reductions_agree(name):
    logits, target = example(name)
    values = term(name, reduction="none")(logits, target)
    assert values.shape == target.shape[:2]
    assert (values > 0).all()
    torch.testing.assert_close(term(name, reduction="sum")(logits, target), values.sum())
    if name == "ce":
        pixels = target.sum((2, 3))
        expected = (values * pixels).sum() / pixels.sum()
    else:
        expected = values.mean()
    torch.testing.assert_close(term(name)(logits, target), expected)


@pytest.mark.parametrize("name", sorted(set(LOSS_TERMS) - {"ce"}))  # its classes share one softmax
def test_each_class_and_image_is_scored_by_itself(name):
    logits = torch.cat([example(name)[0], torch.randn(2, 1, 24, 24)], dim=1)
    target = torch.cat([example(name)[1], example(name)[1].flip(2)], dim=1)
    loss = term(name, reduction="none")
    values = loss(logits, target)
    for image in range(2):
        for channel in range(2):
            one = (slice(image, image + 1), slice(channel, channel + 1))
            torch.testing.assert_close(loss(logits[one], target[one])[0, 0], values[image, channel])


def test_batch_is_the_mean_of_singles(name):
    logits, target = example(name)
    loss = term(name)
    singles = torch.stack([loss(logits[i : i + 1], target[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(loss(logits, target), singles.mean())


def test_mean_over_masked_images(name):
    """Pixelwise terms weigh images by the pixels that count in them, the others weigh them alike."""
    logits, target = example(name)
    mask = torch.ones(2, 1, 24, 24)
    mask[0, :, 6:] = 0
    loss = term(name)
    singles = [loss(logits[i : i + 1], target[i : i + 1], mask=mask[i : i + 1]) for i in range(2)]
    expected = (6 * singles[0] + 24 * singles[1]) / 30 if name in POOLED else (singles[0] + singles[1]) / 2
    torch.testing.assert_close(loss(logits, target, mask=mask), expected)


def test_flips_and_quarter_turns_do_not_matter(name):
    """The exact skeleton of a mirrored mask is not quite the mirrored one, so it is given."""
    logits, target = example(name)
    skeleton = (torch.rand(target.shape) > 0.7) * target
    loss = term(name)
    expected = loss(logits, target, skeleton=skeleton)
    for move in (
        lambda x: x.flip(-1),
        lambda x: x.flip(-2),
        lambda x: x.flip(-1, -2),
        lambda x: x.rot90(1, (-2, -1)),
        lambda x: x.transpose(-1, -2),
    ):
        torch.testing.assert_close(loss(move(logits), move(target), skeleton=move(skeleton)), expected)


@pytest.mark.parametrize("garbage", [50.0, float("nan"), float("inf")])
def test_what_is_outside_the_mask_has_no_influence(name, garbage):
    logits, target = example(name)
    mask = torch.ones(2, 1, 24, 24)
    mask[..., 14:] = 0
    skeleton, other_skeleton = target.clone(), target.clone()
    other_logits, other_target = logits.clone(), target.clone()
    for tensor in (other_logits, other_target, other_skeleton):
        tensor[..., 14:] = garbage
    results = []
    for parts in ((logits, target, skeleton), (other_logits, other_target, other_skeleton)):
        leaf = parts[0].clone().requires_grad_()
        value = term(name)(leaf, parts[1], mask=mask, skeleton=parts[2])
        value.backward()
        results.append((value.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert (results[0][1][..., 14:] == 0).all()
    assert (results[0][1][..., :14] != 0).any()
    assert results[0][0] != term(name)(logits, target)


def test_full_mask_equals_no_mask_and_an_empty_one_is_finite(name):
    logits, target = example(name)
    loss = term(name)
    torch.testing.assert_close(loss(logits, target, mask=torch.ones(2, 1, 24, 24)), loss(logits, target))
    leaf = logits.clone().requires_grad_()
    nothing = loss(leaf, target, mask=torch.zeros(2, 1, 24, 24))
    nothing.backward()
    assert nothing.item() == pytest.approx(0.0, abs=1e-6)
    assert (leaf.grad == 0).all()


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_empty_and_full_targets(name, fill):
    target = torch.full((1, 1, 40, 40), fill)
    if name == "ce":
        target = torch.cat([1 - target, target], dim=1)
    loss, skeleton = term(name), exact_skeleton(target)  # so wide a target has no soft skeleton
    right, wrong = (loss(logits, target, skeleton=skeleton) for logits in (40 * target - 20, 20 - 40 * target))
    assert right.item() == pytest.approx(0.0, abs=2e-2)
    if name == "skeleton_recall" and fill == 0:
        assert wrong == 0  # nothing to be found
    else:
        assert wrong > LEAST.get(name, 0.9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(name, dtype):
    logits, target = example(name, size=256, batch=1)
    logits = (4 * logits).to(dtype).requires_grad_()
    value = term(name)(logits, target.to(dtype))
    value.backward()
    assert value.dtype == torch.float32
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).any()
    torch.testing.assert_close(value, term(name)(logits.detach().float(), target))


def test_gradient_by_finite_differences(name):
    target = torch.zeros(1, 2, 6, 7, dtype=torch.float64)
    target[:, 1, 3, 1:6] = 1
    target[:, 0] = 1 - target[:, 1]
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(target.shape, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.ones(1, 1, 6, 7)
    mask[..., 0, :] = 0
    for softmax in {True, name == "ce"}:
        loss = term(name, reduction="none", softmax=softmax)
        assert loss(logits, target).dtype == torch.float64
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, target, mask=mask), logits, eps=1e-7, atol=1e-5)


def test_a_volume_of_equal_slices_is_scored_like_one_of_them(name):
    """Except for what looks across slices: skeletons of volumes are others than those of slices."""
    logits, target = example(name, batch=1)
    volume, volume_target = (x[:, :, None].expand(-1, -1, 70, -1, -1) for x in (logits, target))
    mask = torch.ones(1, 1, 70, 24, 24)
    mask[:, :, 60:] = 0
    value = term(name)(volume, volume_target, mask=mask)
    flat = term(name)(logits, target)
    if name in ("bce", "balanced_bce", "ce"):
        torch.testing.assert_close(value, flat)
    elif name == "dice":
        torch.testing.assert_close(value, flat, rtol=5e-3, atol=0)  # the smoothing is of one pixel, not of sixty
    else:
        assert value.isfinite()
        assert 0 < value < 10 * flat


def test_background_can_be_left_out(name):
    logits, target = several()
    loss = term(name, softmax=True, reduction="none", include_background=False)
    values = loss(logits, target)
    every = term(name, softmax=True, reduction="none")(logits, target)
    torch.testing.assert_close(values, every if name == "ce" else every[:, 1:])
    if name != "ce":
        single = logits[:, :1], target[:, :1]
        assert term(name, include_background=False)(*single) == term(name)(*single)


def test_softmax_is_the_probability(name):
    """Two classes that exclude each other are one class against the rest, with the difference as its logit."""
    logits, target = several(channels=2)
    values = term(name, softmax=True, reduction="none")(logits, target)
    if name == "ce":
        difference = logits[:, 1] - logits[:, 0]
        expected = (torch.nn.functional.softplus(-difference) * target[:, 1]).sum((1, 2)) / target[:, 1].sum((1, 2))
        torch.testing.assert_close(values[:, 1], expected)
    else:
        expected = term(name, reduction="none")(logits[:, 1:] - logits[:, :1], target[:, 1:])
        torch.testing.assert_close(values[:, 1:], expected)


def test_implicit_background_is_a_channel_of_logit_zero(name):
    logits, target = several(channels=4)
    target[:, 0, 3:9] = 0  # no row of the first class's pixels is left there
    rest = 1 - target[:, 1:].sum(1, keepdim=True)
    explicit = torch.cat([torch.zeros(2, 1, 24, 24), logits[:, 1:]], 1), torch.cat([rest, target[:, 1:]], 1)
    mask = torch.ones(2, 1, 24, 24)
    mask[..., 15:] = 0
    skeleton = torch.zeros_like(explicit[1])
    skeleton[..., 4, :] = 1
    expected = term(name, softmax=True, include_background=name == "ce", reduction="none")(
        *explicit, mask=mask, skeleton=skeleton
    )
    implicit = term(name, softmax=True, implicit_background=True, reduction="none")
    values = implicit(logits[:, 1:], target[:, 1:], mask=mask, skeleton=skeleton[:, 1:])
    torch.testing.assert_close(values, expected)
    assert values.shape == (2, 4 if name == "ce" else 3)


def test_implicit_background_of_one_class_is_its_sigmoid(name):
    if name == "ce":
        logits, target = tree() - 0.3, tree()
        expected = LOSS_TERMS["bce"]()(logits, target)
    else:
        logits, target = example(name)
        expected = term(name)(logits, target)
    torch.testing.assert_close(term(name, softmax=True, implicit_background=True)(logits, target), expected)


def test_large_logits_lose_no_digits_in_the_softmax(name):
    logits = torch.tensor([80.0, 0.0, -80.0]).view(1, 3, 1, 1).expand(1, 3, 40, 40).clone().requires_grad_()
    target = torch.zeros(1, 3, 40, 40)
    target[:, 2] = 1
    value = term(name, softmax=True)(logits, target)
    value.backward()
    assert logits.grad.isfinite().all()
    if name == "ce":
        assert value.item() == pytest.approx(160.0)


def test_target_of_any_dtype(name):
    logits, target = example(name)
    for dtype in (torch.uint8, torch.bool, torch.float64):
        assert term(name)(logits, target.to(dtype)) == term(name)(logits, target)


def test_bad_arguments(name):
    logits, target = example(name)
    loss = term(name)
    with pytest.raises(ValueError, match="differ in shape"):
        loss(logits, target[:1])
    with pytest.raises(ValueError, match="skeleton"):
        loss(logits, target, skeleton=target[..., 1:])
    with pytest.raises(ValueError, match="mask"):
        loss(logits, target, mask=torch.ones(2, 1, 5, 24))
    with pytest.raises(ValueError, match="must have shape"):
        loss(logits[0], target[0])
    with pytest.raises(ConfigError, match="unknown reduction"):
        term(name, reduction="men")
    if name != "ce":
        with pytest.raises(ConfigError, match="needs a softmax"):
            term(name, implicit_background=True)
    with pytest.raises(ConfigError, match="two channels"):
        term(name, softmax=True)(logits[:, :1], target[:, :1])


class TestTargetValues:
    @pytest.mark.parametrize("scale", [255, -1, float("nan"), 1.5])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_others_than_0_to_1_are_refused(self, name, scale, dtype):
        logits, target = example(name)
        with pytest.raises(ValueError, match="target must be 0 or 1, got values from"):
            term(name)(logits, target.to(dtype) * scale)

    def test_whole_loss_refuses_a_mask_of_0_and_255(self):
        logits, target = example("dice")
        expected = TopologyLoss()(logits, target)
        with pytest.raises(ValueError, match="from 0 to 255"):
            TopologyLoss()(logits, (target * 255).to(torch.uint8))
        for same in (target.to(torch.uint8), target.bool()):
            torch.testing.assert_close(TopologyLoss()(logits, same), expected)

    def test_what_does_not_count_is_not_looked_at(self, name):
        logits, target = example(name)
        mask = torch.ones_like(target[:, :1])
        mask[..., :4, :] = 0
        outside = torch.where(mask.expand_as(target) > 0, target, 255.0)
        torch.testing.assert_close(term(name)(logits, outside, mask=mask), term(name)(logits, target, mask=mask))

    def test_soft_targets_stay(self):
        logits, target = example("bce")
        assert TopologyLoss({"bce": 1.0})(logits, target * 0.5).isfinite()
