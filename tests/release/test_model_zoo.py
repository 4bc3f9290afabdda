"""What MONAI's model zoo asks of a bundle, in our words: files, headings, keys, requirements that pip can install."""

import json
import re

import pytest
import yaml
from monai.apps.utils import HashCheckError
from monai.bundle import create_workflow, download_large_files
from packaging.requirements import Requirement
from packaging.version import Version

import topolora_monai
from tests.bundles.helpers import CONFIGS
from tests.conftest import ROOT
from tests.release.test_release import SCORES, write_run
from topolora_monai.adapters import read_spec
from topolora_monai.release import release
from topolora_monai.release.configs import metadata

FILES = ("LICENSE", "configs/metadata.json", "configs/inference.yaml", "models/model.pt")
HEADINGS = ["Model Overview", "Data", "Preprocessing", "Training configuration", "Input", "Output", "Performance",
            "Limits", "MONAI Bundle Commands", "References", "License"]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    return release(write_run(root / "run"), root / "vessels")


def described(bundle):
    return json.loads((bundle / "configs/metadata.json").read_text())


def requirements(metadata):
    """Lines for pip: MONAI, torch and numpy by their own keys, every other package as NAME==VERSION."""
    own = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    versions = {name: metadata[key] for name, key in own.items()}
    for key in ("optional_packages_version", "required_packages_version"):
        versions |= metadata.get(key, {})
    return [Requirement(f"{name}=={version}") for name, version in versions.items()]


def pip_misses(lines):
    """Lines that name none of the versions that are tested together on the oldest Python."""
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {line.split(";")[0].strip().lower() for line in tested if ">=" not in line}
    tested.add(f"topolora_monai=={topolora_monai.__version__}")
    return [str(line) for line in lines if f"{line.name}{line.specifier}".lower() not in tested]


def test_files(bundle):
    assert not [name for name in FILES if not (bundle / name).is_file()]
    assert not list(bundle.rglob("*.py"))


def test_card_has_the_headings(bundle):
    card = (bundle / "docs/README.md").read_text()
    assert re.findall("^#{1,3} (.*)$", card, flags=re.MULTILINE) == HEADINGS
    for reference in [*described(bundle)["references"], "Staal"]:
        assert reference in card


def test_version_is_a_key_of_the_changelog(bundle):
    assert described(bundle)["version"] in described(bundle)["changelog"]


@pytest.mark.parametrize(
    ("network_name", "package"),
    [("vit_b", "topolora_monai"), ("sam2_t", "topolora_monai[sam2]"), ("unet_resnet34", "topolora_monai[baselines]")],
)
def test_pip_can_install_what_it_requires(bundle, network_name, package):
    spec = read_spec(bundle / "models/model.json").replace(network_name=network_name)
    source = json.loads((CONFIGS / "metadata.json").read_text())
    found = metadata(source, "vessels", spec, {"test": SCORES})
    assert "optional_packages_version" not in found  # MONAI puts it in the place of what is required
    assert found["required_packages_version"][package] == topolora_monai.__version__
    lines = requirements(found)
    assert len({line.name for line in lines}) == len(lines)
    assert pip_misses(lines) == []
    assert pip_misses([Requirement("numpy==2.4.6")])
    monai = Version(found["monai_version"])
    assert str(monai) == monai.base_version  # of which the zoo computes the next one


def test_large_files_name_the_weights(bundle):
    entries = yaml.safe_load((bundle / "large_files.yml").read_text())["large_files"]
    assert [entry["path"] for entry in entries] == ["models/model.pt"]
    download_large_files(str(bundle))  # which compares the files that are there


def test_other_weights_are_refused(tmp_path):
    bundle = release(write_run(tmp_path / "run"), tmp_path / "vessels")
    with (bundle / "models/model.pt").open("ab") as file:
        file.write(b"0")
    with pytest.raises(HashCheckError):
        download_large_files(str(bundle))


def test_files_above_the_limit_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("topolora_monai.release.bundle._ZOO_LIMIT", 1_000_000)
    bundle = release(write_run(tmp_path / "run"), tmp_path / "vessels")
    entries = yaml.safe_load((bundle / "large_files.yml").read_text())["large_files"]
    assert [entry["path"] for entry in entries] == ["models/adapters/vessels.safetensors", "models/model.pt"]


def test_properties(bundle, tmp_path, fake_drive):
    workflow = create_workflow(
        workflow_type="inference", config_file=str(bundle / "configs/inference.yaml"), logging_file=False,
        meta_file=str(bundle / "configs/metadata.json"), bundle_root=str(bundle),
        dataset_dir=str(fake_drive / "test/images"), output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    assert workflow.check_properties() == []
    assert workflow.version == described(bundle)["version"]
    assert workflow.spatial_shape == [32, 32]
    assert workflow.channel_def == {"0": "background", "1": "vessel"}


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("drive", "Terms: research use, no redistribution."),
        ("synthetic_vessels", "free of any licence"),
        ("folder", "State them here"),
        (None, "data that nothing is known of: images of the user's own, whose terms apply"),
    ],
)
def test_terms_of_the_data(bundle, dataset, sentence):
    from topolora_monai.release.bundle import _data_licence

    assert sentence in _data_licence(read_spec(bundle / "models/model.json").replace(dataset=dataset))
