"""Which settings follow from which figures."""

import pytest

from tests.planning.helpers import figures
from topolora_monai.errors import ConfigError
from topolora_monai.networks import NETWORK_NAMES
from topolora_monai.planning import fit_plan
from topolora_monai.planning.plan import network_stride

RETINA = (1.0, 3.0, 6.4)
POLYP = (33.0, 78.0, 146.0)


def sizes(plan):
    return plan.image_size, plan.crop_size


def remark(plan, words):
    return any(words in sentence for sentence in plan.found)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (figures(RETINA, sizes=[(584, 565)] * 16, images=16), (768, 192)),
        (figures((1.0, 5.1, 12.0), sizes=[(960, 999)] * 6, images=6), (768, 320)),
        (figures(POLYP, side=352, images=600), (384, 352)),
        (figures((3.6, 7.0, 13.5), side=512), (704, 512)),
        (figures((2.8, 12.4, 45.2), side=512, images=3), (512, 512)),
        (figures((1.0, 1.0, 1.0), side=8000, images=20), (768, 192)),
    ],
)
def test_thin_structures_are_enlarged_and_large_ones_seen_whole(figures, expected):
    assert sizes(fit_plan(figures, "vit_t")) == expected


@pytest.mark.parametrize("network", [name for name in NETWORK_NAMES if name.startswith(("vit", "sam2"))])
@pytest.mark.parametrize("widths", [RETINA, (2.0, 2.0, 2.0), (3.0, 10.0, 30.0), POLYP, (1.0, 40.0, 200.0)])
@pytest.mark.parametrize("side", [40, 300, 700, 3000])
def test_the_thinnest_tenth_is_two_pixels_of_the_input_in_any_case(network, widths, side):
    plan = fit_plan(figures(widths, side=side), network)
    assert widths[0] * plan.zoom >= 2 - 1e-6
    assert plan.image_size % network_stride(network) == 0
    assert 0.05 <= plan.zoom <= 7


def test_large_images_of_large_structures_are_shrunk_to_be_seen_whole():
    plan = fit_plan(figures(POLYP, side=1920), "vit_b")
    assert sizes(plan) == (768, 1920)


def test_the_tiny_network_stays_at_its_own_size_and_rate():
    plan = fit_plan(figures((2.0, 3.0, 7.8), side=512, images=16), "vit_tiny_test")
    assert (*sizes(plan), plan.learning_rate, plan.epochs, plan.crops_per_image) == (256, 96, 2e-3, 30, 4)
    assert fit_plan(figures(RETINA), "vit_t").learning_rate == 5e-4


def test_baselines_work_at_the_image_s_own_size():
    plan = fit_plan(figures(RETINA, side=584), "unet_resnet34")
    assert plan.zoom == 1
    assert "of no effect" in plan.reasons["image_size"]


@pytest.mark.parametrize(("share", "sampling"), [(0.1, "foreground"), (0.6, "foreground"), (0.9, "uniform")])
def test_where_crops_are_cut(share, sampling):
    plan = fit_plan(figures((1.0, 1.0, 1.0), side=8000, occupied={64: 0.0, 192: share, 256: 1.0}))
    assert plan.sampling == sampling
    assert f"{share:.0%}" in plan.reasons["sampling"]
    assert fit_plan(figures(POLYP, occupied={64: 0.1, 512: 0.1})).sampling == "uniform"  # whole images


def test_less_memory_takes_a_smaller_batch_then_a_smaller_input_of_the_same_zoom():
    plans = [fit_plan(figures(RETINA, memory=int(size * 1e9)), "vit_b") for size in (16, 5.5, 3.5)]
    assert [(plan.image_size, plan.batch_size) for plan in plans[:2]] == [(768, 2), (768, 1)]
    assert plans[2].image_size < 768
    assert {plan.zoom for plan in plans} == {4.0}
    assert "do not fit into 3.5 GB" in plans[2].reasons["image_size"]


def test_too_little_memory_for_any_plan():
    with pytest.raises(ConfigError, match="too little memory for any plan with vit_h") as error:
        fit_plan(figures(RETINA, memory=10**9), "vit_h")
    assert "smaller network" in str(error.value)


def test_classes_of_very_different_thickness():
    plan = fit_plan(figures((1.0, 1.5, 3.0), (60.0, 100.0, 150.0), side=2000), "vit_b")
    assert sizes(plan) == (1024, 256)  # the network's own size, so that more of the thick one is seen
    assert remark(plan, "class 2 is 67 times as thick as class 1")
    assert remark(plan, "in part")


def test_empty_masks_alone():
    plan = fit_plan(figures(None, side=500), "vit_b")
    assert (sizes(plan), plan.sampling) == ((512, 500), "uniform")
    assert remark(plan, "all masks that were opened are empty")
    assert "no foreground was found" in plan.reasons["crop_size"]


def test_one_image_gets_many_crops():
    plan = fit_plan(figures(RETINA, images=1))
    assert plan.crops_per_image == 64
    assert remark(plan, "one image alone")


def test_many_images_take_fewer_epochs():
    assert (fit_plan(figures(POLYP, images=600)).epochs, fit_plan(figures(POLYP, images=60_000)).epochs) == (10, 5)


def test_images_of_very_different_sizes_are_said():
    plan = fit_plan(figures(POLYP, sizes=[(300, 400)] * 20 + [(1072, 1920)]), "vit_b")
    assert plan.crop_size == 400
    assert remark(plan, "very different sizes")


def test_few_slices_and_what_does_not_fit_into_memory_are_said():
    assert remark(fit_plan(figures(POLYP, images=8, volumes=1)), "few slices")
    assert remark(fit_plan(figures(RETINA, side=8000, images=500)), "--train#cache_dir")


def test_what_cannot_be_kept_apart_is_said():
    assert remark(fit_plan(figures((0.25, 0.25, 0.25), side=3000)), "expect breaks")


def test_every_value_has_its_reason():
    plan = fit_plan(figures(RETINA))
    assert set(plan.reasons) == set(plan.__dataclass_fields__) - {"network_name", "reasons", "found"}
    with pytest.raises(ConfigError, match="vit_x"):
        fit_plan(figures(RETINA), "vit_x")
