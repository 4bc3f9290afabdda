"""A plan as a file: it says what it was made of, and what a person wrote into it is checked by the line."""

import pytest
import yaml

from tests.planning.helpers import figures
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.planning import fit_plan, plan_text, read_plan, write_plan
from topolora_monai.planning.plan import PLAN_IDS

PLAN = fit_plan(figures((1.0, 3.0, 6.4), side=584, images=16), "vit_t")


@pytest.fixture
def path(tmp_path):
    write_plan(PLAN, tmp_path / "runs/x/plan.yaml")
    return tmp_path / "runs/x/plan.yaml"


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if new.splitlines()[-1] in line)


def test_it_holds_the_ids_of_train_yaml_and_their_reasons(path):
    values = yaml.safe_load(path.read_text())
    assert values == PLAN.values() == read_plan(path, "vit_t")
    assert set(values) == set(PLAN_IDS) - {"model#view_diameter"}  # of images without one
    assert all(len(line) < 120 for line in path.read_text().splitlines())
    blocks = path.read_text().split("\n\n")[1:]
    assert len(blocks) == len(values)
    assert all(block.startswith("# ") for block in blocks)
    assert "584x584 px" in path.read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("image_size: 768", "image_size: 760", "take 752 or 768"),
        ("image_size: 768", "image_size: -768", "a whole number from 16"),
        ("image_size: 768", "image_size: 768.5", "a whole number from 16"),
        ("crop_size: 192", "crop_size: 20000", "a whole number from 16 to 8,192"),
        ("crop_size: 192", "crop_size: 16", "too far apart"),
        ("batch_size: 2", "batch_size: 0", "wrong batch_size"),
        ("epochs: 30", "epochs: true", "wrong epochs"),
        ("learning_rate: 0.0005", "learning_rate: .nan", "wrong learning_rate"),
        ("overlap: 0.25", "overlap: 1.0", "from 0 to below 1"),
        ("sampling: uniform", "sampling: everywhere", "uniform or foreground"),
        ("sampling: uniform", "smapling: uniform", "did you mean sampling?"),
        ("sampling: uniform", "preset: lora", "on the command line"),
        ("epochs: 30", "epochs: 30\nepochs: 31", "epochs is given twice"),
        ("epochs: 30", "epochs: [30", "not YAML"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(path, old, new, said):
    line = edited(path, old, new)
    with pytest.raises(ConfigError) as error:
        read_plan(path, "vit_t")
    assert said in str(error.value)
    named = int(str(error.value).splitlines()[0].rpartition(" line ")[2])
    assert named in ((line,) if said != "not YAML" else range(line, line + 5))
    assert str(path) in str(error.value)


def test_what_is_left_out_is_left_to_the_data(path):
    path.write_text("crop_size: 256\n")
    assert read_plan(path, "vit_t") == {"crop_size": 256}


def test_sam2_takes_multiples_of_32(path):
    edited(path, "image_size: 768", "image_size: 784")
    assert read_plan(path, "vit_t")["image_size"] == 784
    with pytest.raises(ConfigError, match="multiple of 32"):
        read_plan(path, "sam2_t")


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n"])
def test_other_files_are_refused(path, text):
    path.write_text(text)
    with pytest.raises(ConfigError, match="not a plan"):
        read_plan(path, "vit_t")
    with pytest.raises(DataError, match="plan not found"):
        read_plan(path.with_name("none.yaml"), "vit_t")
    assert "image_size" in plan_text(PLAN)
