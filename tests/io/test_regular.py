"""What is no file is named before it is opened: every reader ends, and says what it found."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from topolora_monai.adapters import read_spec
from topolora_monai.data import open_dataset
from topolora_monai.data.annotation_files import load_json
from topolora_monai.data.datalists import read_csv_list, read_json_list
from topolora_monai.data.items import check_item
from topolora_monai.errors import AdapterFileError, CheckpointError, DataError
from topolora_monai.io import image_kind, image_size, is_raster, is_volume, read_image, read_mask, read_volume
from topolora_monai.io.regular import path_kind, require_file
from topolora_monai.weights import checkpoint_origin, find_checkpoint, read_checkpoint

SUFFIXES = (".png", ".jpg", ".tif", ".nii", ".nii.gz", ".dcm", ".mha", ".nrrd", ".ppm.gz", "")
READERS = (read_image, lambda path: read_mask(path, 0, 0), image_size, read_volume)


@pytest.fixture(params=SUFFIXES)
def pipe(request, tmp_path):
    """A named pipe that nobody writes to."""
    path = tmp_path / f"a{request.param}"
    os.mkfifo(path)
    return path


def test_kinds(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
        names = ("file", "link", "circle", "pipe", "socket", "none", "")
        kinds = [path_kind(tmp_path / name) for name in names]
    assert kinds == ["a file", "a file", None, "a named pipe", "a socket", None, "a folder"]
    assert path_kind("/dev/zero") == "a device"


class TestReaders:
    @pytest.mark.parametrize("read", READERS)
    def test_a_pipe_is_named(self, pipe, read):
        with pytest.raises(DataError, match="not a file") as error:
            read(pipe)
        assert "a named pipe" in str(error.value)

    def test_sniffing_does_not_wait(self, pipe):
        assert not is_raster(pipe)
        assert is_volume(pipe) == pipe.name.endswith((".nii", ".nii.gz", ".dcm", ".mha", ".nrrd"))
        image_kind(pipe)

    def test_a_device(self):
        with pytest.raises(DataError, match="a device"):
            read_image("/dev/zero")

    def test_a_folder_is_no_picture(self, tmp_path):
        with pytest.raises(DataError, match="a folder"):
            read_image(tmp_path)

    @pytest.mark.parametrize(
        ("name", "found"), [("a\0.png", "a NUL character"), ("n" * 5000 + ".png", "5004"), ("a\ud800.png", "no text")]
    )
    @pytest.mark.parametrize("read", READERS)
    def test_names_that_cannot_be(self, tmp_path, name, found, read):
        with pytest.raises(DataError, match="no file can have this name") as error:
            read(tmp_path / name)
        assert found in str(error.value)
        assert len(str(error.value)) < 600
        assert "\0" not in str(error.value)

    def test_a_pipe_in_a_dicom_folder(self, tmp_path):
        (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
        os.mkfifo(tmp_path / "b.dcm")
        with pytest.raises(DataError, match="a named pipe"):
            read_volume(tmp_path)


class TestLists:
    def pair(self, tmp_path):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "m.png")
        os.mkfifo(tmp_path / "a.png")

    def test_a_pipe_in_a_list_is_named(self, tmp_path):
        self.pair(tmp_path)
        content = {"training": [{"image": "a.png", "label": "m.png"}]}
        (item,) = read_json_list(content, tmp_path / "list.json").splits["training"]
        with pytest.raises(DataError, match="a named pipe"):
            check_item(item)

    @pytest.mark.parametrize("name", ["list.json", "list.csv"])
    def test_a_list_that_is_a_pipe(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="a named pipe"):
            open_dataset("folder", tmp_path / name)
        with pytest.raises(DataError, match="a named pipe"):
            (read_csv_list if name.endswith("csv") else load_json)(tmp_path / name)

    @pytest.mark.parametrize("name", ["list.json", "list.csv"])
    def test_a_list_larger_than_any(self, tmp_path, name):
        with (tmp_path / name).open("wb") as file:
            file.truncate(10**11)  # a hole, which takes no room
        with pytest.raises(DataError, match=r"too large for a list: .*list\."):
            open_dataset("folder", tmp_path / name)

    @pytest.mark.parametrize("key", ["image", "label", "fov"])
    @pytest.mark.parametrize("file", ["a\0.png", "n" * 5000, "a\ud800.png", "x/" * 3000])
    def test_names_that_cannot_be_are_told_with_list_and_row(self, tmp_path, key, file):
        rows = [{"image": f"{n}.png", "label": "m.png"} for n in range(2)]
        rows[1][key] = file
        with pytest.raises(DataError, match=r"cannot be \(training\[1\]\)") as error:
            read_json_list({"training": rows}, tmp_path / "list.json")
        assert "list.json" in str(error.value)
        assert len(str(error.value)) < 700

    def test_and_in_a_table(self, tmp_path):
        (tmp_path / "list.csv").write_text(f"image,label\na.png,m.png\n{'n' * 5000},m.png\n")
        with pytest.raises(DataError, match=r"cannot be \(line 3\)"):
            read_csv_list(tmp_path / "list.csv")

    def test_links_that_lead_in_a_circle(self, tmp_path):
        (tmp_path / "a.png").symlink_to("a.png")
        (item,) = read_json_list({"training": [{"image": "a.png", "label": "m.png"}]}, tmp_path / "l.json").splits[
            "training"
        ]
        with pytest.raises(DataError, match="file not found"):
            check_item(item)

    @pytest.mark.parametrize("name", ["n" * 5000, "a\0"])
    def test_a_folder_that_cannot_be(self, name):
        with pytest.raises(DataError, match="no file can have this name"):
            open_dataset("folder", name)

    def test_names_in_annotations(self, tmp_path):
        content = {
            "images": [{"id": 1, "file_name": "n" * 5000, "height": 4, "width": 4}],
            "annotations": [],
            "categories": [{"id": 1, "name": "vessel"}],
        }
        (tmp_path / "coco.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"image file not found \(image 1\)") as error:
            open_dataset("folder", tmp_path / "coco.json")
        assert len(str(error.value)) < 1500


class TestTensors:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_a_pipe_is_named(self, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        os.mkfifo(path)
        for read in (read_checkpoint, checkpoint_origin, find_checkpoint):
            with pytest.raises(CheckpointError, match="a named pipe"):
                read(path)
        with pytest.raises(AdapterFileError, match="a named pipe"):
            read_spec(path)

    @pytest.mark.parametrize("name", ["n" * 5000, "a\0.safetensors"])
    def test_names_that_cannot_be(self, name):
        for read in (read_checkpoint, find_checkpoint):
            with pytest.raises(CheckpointError, match="no file can have this name"):
                read(name)
        with pytest.raises(AdapterFileError, match="no file can have this name"):
            read_spec(name)

    def test_a_checkpoint_by_a_link(self, tmp_path):
        torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt")
        (tmp_path / "b.pt").symlink_to("a.pt")
        require_file(tmp_path / "b.pt")
        assert list(read_checkpoint(tmp_path / "b.pt")) == ["weight"]


def test_light_parts_stay_light():
    code = "import sys, topolora_monai.weights; sys.exit('nibabel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
