"""Known answers of the soft clDice, and the cases that MONAI's loss gets wrong."""

import pytest
import torch
from monai.losses import SoftclDiceLoss, SoftDiceclDiceLoss
from monai.losses.cldice import soft_skel
from skimage.measure import label
from skimage.morphology import skeletonize

from tests.losses.shapes import certain, noisy_logits, tree
from topolora_monai.errors import ConfigError
from topolora_monai.losses import SoftClDiceLoss, TopologyLoss, exact_skeleton


def monai(logits, target, iterations=5, **options):
    """MONAI's loss with as many iterations as ours; its arguments by name, since 1.6 exchanged their order."""
    return SoftclDiceLoss(iter_=iterations - 1, sigmoid=True, **options)(input=logits, target=target)


def exact(target):
    return torch.stack([torch.from_numpy(skeletonize(mask.numpy() > 0)) for mask in target[:, 0]])[:, None].float()


def test_known_answer_for_half_a_line():
    target = torch.zeros(1, 1, 12, 42)
    target[..., 6, 1:41] = 1
    half = target.clone()
    half[..., 21:] = 0
    # precision 1; sensitivity (20 + 1) / (40 + 1)
    expected = 1 - 2 * (21 / 41) / (1 + 21 / 41)
    assert SoftClDiceLoss(3)(certain(half), target).item() == pytest.approx(expected, abs=1e-6)


def test_known_answer_for_half_a_line_in_a_volume():
    target = torch.zeros(1, 1, 7, 8, 42)
    target[..., 3, 4, 1:41] = 1
    half = target.clone()
    half[..., 21:] = 0
    expected = 1 - 2 * (21 / 41) / (1 + 21 / 41)
    assert SoftClDiceLoss(3)(certain(half), target).item() == pytest.approx(expected, abs=1e-6)
    assert SoftClDiceLoss(3)(certain(half), target, skeleton=exact(target)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 48, 40), (1, 1, 12, 20, 16)])
def test_equals_monai_on_one_class_with_a_target(shape):
    """And so is neither exactly 0 on one channel, as MONAI's was up to 1.5, nor of exchanged arguments."""
    target = torch.zeros(shape)
    target[..., 4:9, 6:-3] = 1
    logits = noisy_logits(target)
    ours = SoftClDiceLoss(5)(logits, target)
    torch.testing.assert_close(ours, monai(logits, target, smooth=1e-12), rtol=1e-5, atol=1e-6)
    assert ours > 0.05
    assert ours != SoftClDiceLoss(5)(torch.logit(target, 0.1), torch.sigmoid(logits).round())


def test_exact_skeleton_is_used_when_given():
    target = tree()
    logits = noisy_logits(target)
    skeleton = exact(target)
    loss = SoftClDiceLoss(5)
    assert loss(logits, target, skeleton=skeleton) != loss(logits, target)
    missing = logits - 100 * skeleton  # only the exact skeleton's pixels are lost
    assert loss(missing, target, skeleton=skeleton) > loss(logits, target, skeleton=skeleton) + 0.1


def test_exact_skeleton_is_each_class_s_own():
    target = torch.cat([tree(), tree().transpose(2, 3)], dim=1)
    logits = noisy_logits(target)
    both = SoftClDiceLoss(5, reduction="none")(logits, target, skeleton=exact_skeleton(target))
    for channel in range(2):
        one = slice(channel, channel + 1)
        single = SoftClDiceLoss(5)(logits[:, one], target[:, one], skeleton=exact(target[:, one]))
        torch.testing.assert_close(both[0, channel], single)


@pytest.mark.parametrize("arguments", [{"iterations": 0}, {"smooth": 0.0}])
def test_bad_settings(arguments):
    with pytest.raises(ConfigError):
        SoftClDiceLoss(**arguments)


class TestWhereMonaiFails:
    def test_classes_are_not_pooled(self):
        """A rare class missed whole."""
        target = torch.cat([tree(), torch.zeros(1, 1, 48, 48)], dim=1)
        target[:, 1, 20, 20:26] = 1
        prediction = target.clone()
        prediction[:, 1] = 0
        assert monai(certain(prediction), target) < 0.1
        assert SoftClDiceLoss(5)(certain(prediction), target) > 0.3
        each = SoftClDiceLoss(5, reduction="none")(certain(prediction), target)
        assert each[0, 0] < 0.01
        assert each[0, 1] > 0.7

    def test_thick_structures_have_a_skeleton(self):
        """A bar of 30 pixels, of which the middle third is missing: a break."""
        target = torch.zeros(1, 1, 60, 120)
        target[..., 15:45, 10:110] = 1
        broken = target.clone()
        broken[..., 43:77] = 0
        assert monai(certain(broken), target) < 0.01
        assert SoftClDiceLoss(5)(certain(broken), target, skeleton=exact(target)) > 0.15

    def test_a_blob_on_an_empty_target_costs(self):
        empty, full = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
        assert monai(certain(full), empty) < 1e-4
        assert SoftClDiceLoss(5)(certain(full), empty) > 0.99
        assert SoftClDiceLoss(5)(certain(empty), empty) == 0
        few = empty.clone()
        few[..., 3, 3:9] = 1
        assert 0 < SoftClDiceLoss(5)(certain(few), empty) < SoftClDiceLoss(5)(certain(full), empty)

    def test_half_precision_gives_a_number(self):
        target = torch.zeros(1, 1, 512, 512, dtype=torch.float16)
        target[..., ::2] = 1  # lines of more pixels than the type can count
        logits = (8 * target - 4).requires_grad_()
        assert not monai(logits, target).isfinite()
        value = SoftClDiceLoss(5)(logits, target)
        value.backward()
        assert value.isfinite()
        assert logits.grad.isfinite().all()

    def test_values_without_reduction_have_one_entry_a_class(self):
        target = torch.cat([tree(), tree().transpose(2, 3)]).expand(2, 3, 48, 48)
        logits = noisy_logits(target)
        combined = SoftDiceclDiceLoss(iter_=4, sigmoid=True, reduction="none")
        try:
            shape = combined(logits, target).shape
        except RuntimeError:  # where its parts do not even broadcast
            shape = None
        assert shape != (2, 3)
        assert SoftClDiceLoss(5, reduction="none")(logits, target).shape == (2, 3)

    def test_the_target_s_skeleton_does_not_fall_apart(self):
        target = torch.zeros(1, 1, 256, 256)
        for index in range(8):
            angle = torch.tensor(0.35 * index + 0.1)
            steps = torch.arange(-90, 90, 0.25)
            rows = (128 + steps * angle.sin()).round().long()
            columns = (128 + steps * angle.cos()).round().long()
            width = 1 + index % 4
            for row in range(-width, width + 1):
                for column in range(-width, width + 1):
                    target[0, 0, (rows + row).clamp(0, 255), (columns + column).clamp(0, 255)] = 1

        def components(mask):
            return label(mask[0, 0].numpy() > 0.5, connectivity=2).max()

        assert components(target) == 1
        assert components(soft_skel(target, 9)) > 10
        assert components(exact(target)) == 1
        severed = certain(target)
        fragments = soft_skel(target, 9)
        severed = severed - 100 * (exact(target) - fragments).clamp(min=0)  # all that the soft skeleton lacks
        assert SoftClDiceLoss(10)(severed, target, skeleton=exact(target)) > SoftClDiceLoss(10)(severed, target) + 0.1

    def test_topology_loss_takes_it_all(self):
        empty = torch.zeros(1, 2, 64, 64)
        loss = TopologyLoss({"cldice": 1.0}, iterations=5)
        assert loss(certain(1 - empty), empty) > 0.99
