"""Loading of items and exact skeletons."""

import numpy as np
import torch
from skimage.measure import label

from topolora_monai.data import Drive
from topolora_monai.transforms import ExactSkeletond, LoadItem


def test_item_becomes_tensors(fake_drive):
    item = Drive(fake_drive, allow_partial=True).items("test")[0]
    loaded = LoadItem()(item)
    assert loaded["image"].shape == (3, 64, 72)
    assert 0 < loaded["image"].max() <= 1
    assert loaded["label"].shape == loaded["fov"].shape == (1, 64, 72)
    assert set(loaded["label"].unique().tolist()) == {0.0, 1.0}
    assert loaded["label"][0, 31, 30] == 1  # row 31, column 30: on the horizontal vessel
    assert loaded["fov"].sum() == 56 * 64
    assert loaded["name"] == "01_test"


def test_absent_field_of_view_is_everything_and_absent_label_stays_absent(fake_drive):
    item = Drive(fake_drive, allow_partial=True).items("test")[0]
    del item["fov"]
    assert LoadItem()(item)["fov"].min() == 1
    assert "label" not in LoadItem()({"image": item["image"], "name": "x"})


def test_one_channel(fake_drive):
    assert LoadItem(channels=1)(Drive(fake_drive, allow_partial=True).items("test")[0])["image"].shape == (1, 64, 72)


def test_skeleton_is_thin_connected_and_inside():
    mask = torch.zeros(2, 60, 60)
    mask[0, 10:50, 20:26] = 1
    mask[0, 28:33, 5:55] = 1
    skeleton = ExactSkeletond("label")({"label": mask})["label_skeleton"]
    assert skeleton.shape == mask.shape
    assert (mask[skeleton > 0] == 1).all()
    assert 0 < skeleton[0].sum() < mask[0].sum() / 3
    assert label(skeleton[0].numpy() > 0, connectivity=2).max() == 1
    assert skeleton[1].sum() == 0
    assert skeleton.dtype == torch.float32


def test_skeleton_leaves_other_keys_alone():
    mask = torch.from_numpy(np.eye(9, dtype=np.float32))[None]
    data = {"label": mask, "image": mask}
    assert set(ExactSkeletond("label")(data)) == {"label", "image", "label_skeleton"}
    assert set(data) == {"label", "image"}
