"""Answers that are no numbers stop a run with the image's name, and nothing is written of them."""

import math

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Activationsd

from topolora_monai.engines import (
    PredictionWriter,
    SceneSegmenter,
    UncertaintyInferer,
    prepare_batch,
)
from topolora_monai.errors import TopoLoRAError
from topolora_monai.model.inferers import TemperatureInferer, check_finite
from topolora_monai.model.tiling import TileInferer
from topolora_monai.reports import EvaluationReport, SplitScores
from topolora_monai.transforms import IntensityScaling


class Broken(torch.nn.Module):
    """Answers in numbers but for one pixel of bright images."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, image):
        logits = image[:, :1] - 0.25
        logits[:, 0, 3, 4] = torch.where(image[:, 0, 3, 4] > 0.5, self.value, logits[:, 0, 3, 4])
        return logits


def evaluator(value, handlers, inferer=None):
    items = [
        {"name": name, "image": torch.full((3, 8, 8), level), "label": torch.ones(1, 8, 8), "fov": torch.ones(1, 8, 8)}
        for name, level in (("dark", 0.2), ("bright", 0.8))
    ]
    return SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=DataLoader(Dataset(items), batch_size=1), network=Broken(value),
        prepare_batch=prepare_batch, inferer=TemperatureInferer(inferer or SimpleInferer()), val_handlers=handlers,
        postprocessing=Activationsd(keys="pred", sigmoid=True),
    )  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("uncertain", [False, True])
def test_no_mask_is_written(tmp_path, value, uncertain):
    inferer = UncertaintyInferer(SimpleInferer(), passes=0, axes=2) if uncertain else None
    with pytest.raises(TopoLoRAError, match=r"not a number(.|\n)*of 64 values, image bright(.|\n)*--precision fp32"):
        evaluator(value, [PredictionWriter(tmp_path)], inferer).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dark_mask.png", "dark_probability.png"]


@pytest.mark.parametrize("handler", [lambda folder: EvaluationReport(folder, lambda: 0.5), lambda _: SplitScores()])
def test_no_score_is_counted(tmp_path, handler):
    with pytest.raises(TopoLoRAError, match="image bright"):
        evaluator(math.nan, [handler(tmp_path)]).run()


def test_no_scene_is_written(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": 40, "width": 50}
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as scene:
        scene.write(np.full((3, 40, 50), 200, np.uint8))
    segmenter = SceneSegmenter(
        Broken(math.nan), TileInferer(SimpleInferer(), 32), 3, IntensityScaling(), tmp_path / "out", "none"
    )
    with pytest.raises(TopoLoRAError, match=r"not a number(.|\n)*image scene"):
        segmenter.run([{"name": "scene", "image": str(tmp_path / "scene.tif")}])
    assert not list((tmp_path / "out").glob("*.tif"))


def test_numbers_pass():
    check_finite(torch.tensor([-1e30, 0.0, 1e30]), ["a"])
