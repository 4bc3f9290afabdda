"""The plan in a run: asked for only where nobody says otherwise, kept, and gone on by."""

import json
import re
import shutil

import pytest
import yaml
from monai.bundle import create_workflow

from tests.bundles.helpers import CONFIGS, SMALL, parsed
from tests.planning.helpers import lines, write_folder
from topolora_monai.cli import main
from topolora_monai.errors import ConfigError, TopoLoRAError
from topolora_monai.planning import RunPlan, check_sampling
from topolora_monai.planning import run as planning_run

PLANNED = ("image_size", "crop_size", "epochs", "crops_per_image", "model#overlap")
FEW = {key: value for key, value in SMALL.items() if key != "crop_size"} | {
    "epochs": 1, "tracker#trackers": [],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "data", [lines((64, 64), 2) for _ in range(6)])
    return tmp_path / "data"


def training(folder, *files, **options):
    config = [str(CONFIGS / "train.yaml"), *map(str, files)]
    options = FEW | {"dataset_name": "folder", "dataset_dir": str(folder)} | options
    return create_workflow(config_file=config, workflow_type="train", **options)


def refused(*arguments, **options) -> str:
    with pytest.raises(Exception) as caught:
        training(*arguments, **options).run()
    error = caught.value
    while error is not None and not isinstance(error, TopoLoRAError):
        error = error.__cause__
    assert error is not None, caught.getrepr(chain=True)
    return str(error)


def test_train_yaml_starts_from_it_and_what_is_given_wins(folder):
    options = {"dataset_name": "folder", "dataset_dir": str(folder)}
    planned = parsed("train.yaml", **options)
    for name in PLANNED:
        planned[name] = parsed_text(name)
    get = planned.get_parsed_content
    plan = get("plan")
    assert (get("image_size"), get("crop_size")) == (plan.image_size, plan.crop_size) == (256, 64)
    assert (get("batch_size"), get("sampling"), get("epochs")) == (2, "uniform", 30)
    given = parsed("train.yaml", **options, crop_size=48)
    assert given.get_parsed_content("crop_size") == 48
    scaled = parsed("train.yaml", **options, image_size=128, crop_size=parsed_text("crop_size"))
    assert scaled.get_parsed_content("crop_size") == 32  # the plan's zoom


def parsed_text(name):
    text = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    for part in name.split("#"):
        text = text[part]
    return text


def test_nothing_is_measured_where_all_is_given(folder, monkeypatch):
    monkeypatch.setattr(planning_run, "fingerprint", lambda *args, **options: pytest.fail("measured"))
    given = {"batch_size": 2, "learning_rate": 1e-3, "sampling": "foreground"}
    get = parsed("train.yaml", dataset_name="folder", dataset_dir=str(folder), **given).get_parsed_content
    crop = get("train#preprocessing").transforms[2]
    assert type(crop).__name__ == "RandForegroundCropd"
    assert get("plan").overlap == 0.25


def test_a_run_keeps_its_plan_and_goes_on_by_it(folder, tmp_path):
    out = str(tmp_path / "run")
    training(folder, output_dir=out).run()
    stored = yaml.safe_load((tmp_path / "run/plan.yaml").read_text())
    record = json.loads((tmp_path / "run/training.json").read_text())
    assert (stored["crop_size"], record["crop_size"], record["plan"]["crop_size"]) == (16, 16, 16)
    assert "given to the run" in (tmp_path / "run/plan.yaml").read_text()
    assert "px wide" in record["plan"]["reasons"]["crop_size"]
    assert "the zoom is kept" in record["plan"]["reasons"]["crop_size"]
    before = (tmp_path / "run/plan.yaml").read_bytes()
    again = training(folder, output_dir=out, epochs=2)
    again.run()
    assert (tmp_path / "run/plan.yaml").read_bytes() == before

    edited = before.decode().replace("crop_size: 16", "crop_size: 48")
    (tmp_path / "run/plan.yaml").write_text(edited)
    said = refused(folder, output_dir=out)
    assert "--crop_size 48, was 16" in said


def test_a_plan_is_an_overlay_and_its_errors_name_the_line(folder, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert main(["plan", "folder", str(folder), "--network_name", "vit_tiny_test", "--out", str(path)]) == 0
    assert "crops of 64 px at 256 px, uniform sampling" in capsys.readouterr().out
    assert main(["plan", "folder", str(folder), "--network_name", "vit_tiny_test"]) == 0
    assert capsys.readouterr().out == path.read_text()
    path.write_text(re.sub("crop_size: .*", "crop_size: -3", path.read_text()))
    line = path.read_text().splitlines().index("crop_size: -3") + 1
    said = refused(folder, path, output_dir=str(tmp_path / "run"))
    assert f"{path}, line {line}" in said
    shutil.copy(path, tmp_path / "plan.yaml")
    (tmp_path / "plan.yaml").write_text("batchsize: 2\n")
    said = refused(folder, tmp_path / "plan.yaml", output_dir=str(tmp_path / "run"))
    assert "did you mean batch_size?" in said
    assert "plan.yaml, line 1" in said


def test_what_the_command_line_refuses(folder, capsys):
    assert main(["plan", "folder", str(folder), "--network_name", "vit_x"]) == 1
    assert "unknown network_name" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="sampling"):
        check_sampling("some")


def test_a_plan_without_a_state_is_made_anew(folder, tmp_path):
    (tmp_path / "plan.yaml").write_text("crop_size: 17\n")
    data = write_folder(folder, [lines((64, 64), 2)] * 6)
    assert RunPlan(data, "vit_tiny_test", output_dir=tmp_path).crop_size == 64
    (tmp_path / "last.pt").touch()
    assert RunPlan(data, "vit_tiny_test", output_dir=tmp_path).crop_size == 17
    assert RunPlan(data, "vit_tiny_test", output_dir=tmp_path, resume=False).crop_size == 64
