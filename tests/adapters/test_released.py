"""Adapters that come with the package: found by name, half as large, with a card, and only as they were released."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.adapters.test_adapter_cli import write
from tests.release.test_release import write_run
from topolora_monai.adapters import (
    base_weights,
    find_adapter,
    halve_adapter,
    load_adapter,
    read_spec,
    released,
    released_adapters,
    save_adapter,
    verify_adapter,
)
from topolora_monai.cli import main
from topolora_monai.errors import AdapterFileError, CheckpointError, ConfigError, DataError, OutputError
from topolora_monai.io.download import file_sha256
from topolora_monai.model.predictor import Predictor
from topolora_monai.networks import build_network
from topolora_monai.release import adapter as releasing
from topolora_monai.release import release_adapter
from topolora_monai.weights import KNOWN_CHECKPOINTS, known

OPTIONS = {"precision": "fp32", "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("released") / "run", view_diameter=540.0, thickness=3.0)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """The folder of released adapters, for once an empty one elsewhere."""
    monkeypatch.setattr(released, "FOLDER", tmp_path / "shelf")
    monkeypatch.setattr(releasing, "FOLDER", tmp_path / "shelf")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "shelf"


def test_those_in_the_repository_are_whole():
    """Each of them; none may have been edited, or be large, or rest on a base that nobody can fetch."""
    adapters = released_adapters().values()
    assert sum(one.path.stat().st_size for one in adapters) <= releasing.MOST_BYTES
    files = {path.name for path in released.FOLDER.iterdir()}
    assert files == {released.INDEX_FILE} | {path.name for one in adapters for path in (one.path, one.card)}
    for one in adapters:
        summary, _ = verify_adapter(one.name)
        assert (summary.sha256, summary.spec.checkpoint) == (one.sha256, one.checkpoint)
        assert KNOWN_CHECKPOINTS[one.checkpoint].url
        assert {tensor.dtype for tensor in load_file(one.path).values()} <= {torch.float16, torch.int64}
        card = one.card.read_text()
        assert f"--adapter {one.name}" in card
        assert one.licence in card


def test_half_a_file_answers_alike(run, tmp_path, capsys):
    whole, half = run / "adapter.safetensors", tmp_path / "half.safetensors"
    assert main(["adapter", "half", str(whole), "--out", str(half)]) == 0
    assert "of its norm" in capsys.readouterr().out
    assert half.stat().st_size < 0.51 * whole.stat().st_size + 5000
    assert read_spec(half) == read_spec(whole)
    assert main(["adapter", "verify", str(half)]) == 0
    with torch.no_grad():
        image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
        first, second = (
            load_adapter(build_network("vit_tiny_test", image_size=64, seed=0), path).network.eval()(image)
            for path in (whole, half)
        )
    assert first.dtype == second.dtype == torch.float32
    torch.testing.assert_close(second, first, rtol=0.02, atol=0.05)
    assert not torch.equal(second, first)


def test_what_does_not_fit_into_16_bits_is_refused(tmp_path):
    adaptation = write(tmp_path / "a.safetensors")
    next(iter(adaptation.trainable().values())).data[:] = 1e5
    save_adapter(adaptation, tmp_path / "a.safetensors", image_size=64)
    with pytest.raises(AdapterFileError, match="do not fit into 16 bits"):
        halve_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        halve_adapter(tmp_path / "a.safetensors", tmp_path / "b.pt")


def test_one_command_adds_an_adapter_and_its_name_stands_for_it(run, shelf, tmp_path, capsys, monkeypatch):
    assert main(["adapter", "list"]) == 0
    assert "no adapter comes with this version" in capsys.readouterr().out
    assert main(["adapter", "release", "vessels", "--run", str(run), "--licence", "CC-BY-4.0"]) == 0
    assert "predict photo.jpg --adapter vessels" in capsys.readouterr().out
    index = json.loads((shelf / "index.json").read_text())
    assert index["vessels"]["sha256"] == file_sha256(shelf / "vessels.safetensors")
    assert sorted(path.name for path in shelf.iterdir()) == ["index.json", "vessels.md", "vessels.safetensors"]
    with safe_open(shelf / "vessels.safetensors", framework="pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} <= {"torch.float16", "torch.int64"}  # noqa: SIM118

    card = (shelf / "vessels.md").read_text()
    for text in ("# vessels", "--adapter vessels", "random weights of seed 0", "Staal", "0.812", "CC-BY-4.0", "seed 3",
                 "16 bits", "540 px across", "--match_scale", "0.400"):  # fmt: skip
        assert text in card, text
    assert not any(word in card for word in ("TODO", "None", "{", "}"))

    for command, said in (("list", "vessels"), ("info", "CC-BY-4.0"), ("verify", "passed")):
        assert main(["adapter", command, *([] if command == "list" else ["vessels"])]) == 0
        assert said in capsys.readouterr().out
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    settings = [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]
    words = [
        "predict",
        str(tmp_path / "photo.png"),
        "--adapter",
        "vessels",
        "--out",
        str(tmp_path / "masks"),
        *settings,
    ]
    assert main([*words, *settings]) == 0
    expected = Predictor.from_adapter(shelf / "vessels.safetensors", **OPTIONS)(tmp_path / "photo.png").mask
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks/photo_mask.png")) > 0, expected > 0)

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "vessels")  # a file of that name goes first
    assert find_adapter("vessels").absolute() == tmp_path / "vessels"


def test_names_that_stand_for_nothing_and_files_that_were_changed(run, shelf):
    with pytest.raises(AdapterFileError, match="none comes with this version"):
        read_spec("vessels")
    release_adapter(run, "vessels", "MIT")
    with pytest.raises(AdapterFileError, match="expected: vessels"):
        read_spec("vesels")
    (shelf / "vessels.safetensors").write_bytes((run / "adapter.safetensors").read_bytes())
    with pytest.raises(AdapterFileError, match="not as it was released"):
        read_spec("vessels")
    (shelf / "vessels.safetensors").unlink()
    with pytest.raises(AdapterFileError, match="no file"):
        Predictor.from_adapter("vessels")
    (shelf / "index.json").write_text('{"vessels": {"sha": 1}}')
    with pytest.raises(ConfigError, match="list of adapters is damaged"):
        released_adapters(shelf)


def test_what_cannot_be_released_is_said(run, shelf, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="lower-case"):
        release_adapter(run, "Vessels 2", "MIT")
    with pytest.raises(DataError, match="evaluate the run first"):
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare/adapter.safetensors").write_bytes((run / "adapter.safetensors").read_bytes())
        release_adapter(tmp_path / "bare", "vessels", "MIT")
    mine = write_run(tmp_path / "mine", dataset="folder", pretrained=True)
    with pytest.raises(ConfigError, match="a file of no known checkpoint"):
        release_adapter(mine, "mine", "MIT", data="mine")
    own = write_run(tmp_path / "own", dataset="folder")
    with pytest.raises(ConfigError, match="give --data"):
        release_adapter(own, "own", "MIT")
    assert not shelf.exists()
    release_adapter(own, "own", "MIT", data="Walls of my house: MIT.")
    assert "Walls of my house" in (shelf / "own.md").read_text()
    with pytest.raises(OutputError, match="of that name"):
        release_adapter(own, "own", "MIT", data="mine")
    monkeypatch.setattr(releasing, "MOST_BYTES", 1_000_000)
    with pytest.raises(OutputError, match="too large"):
        release_adapter(own, "again", "MIT", data="mine")
    assert list(released_adapters(shelf)) == ["own"]


def test_its_base_is_fetched_or_the_way_to_it_is_said(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = write_run(tmp_path / "own", checkpoint="mobile_sam")
    release_adapter(own, "vessels", "MIT")
    monkeypatch.setattr("topolora_monai.io.download.download_file", _no_network)
    assert base_weights(own / "adapter.safetensors") is None  # nothing is downloaded for other files
    with pytest.raises(CheckpointError, match="neither here nor can it be downloaded") as error:
        base_weights("vessels")
    assert "topolora weights fetch mobile_sam" in str(error.value)

    def download(url, path, sha256):
        path.parent.mkdir(parents=True)
        path.write_bytes(url.encode())

    monkeypatch.setattr("topolora_monai.io.download.download_file", download)
    assert base_weights("vessels") == "mobile_sam"
    assert (known.weights_folder() / "mobile_sam.pt").read_bytes().endswith(b"mobile_sam.pt")


def _no_network(url, path, sha256):
    raise DataError("cannot be reached", path=url)
