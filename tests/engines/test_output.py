"""Where masks go: apart from the images they are of."""

import pytest

from topolora_monai.engines import PredictionWriter, SceneSegmenter, check_apart
from topolora_monai.errors import ConfigError, OutputError
from topolora_monai.metrics import check_threshold
from topolora_monai.transforms import IntensityScaling


def items(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [{"name": name, "image": str(folder / name)} for name in names]


class TestApart:
    @pytest.mark.parametrize("source", ["images", "images/*.png"])
    @pytest.mark.parametrize("out", ["images", "images/../images", ".", "link"])
    def test_images_in_the_output_folder(self, tmp_path, source, out):
        found = items(tmp_path / "images", "a.png")
        (tmp_path / "link").symlink_to(tmp_path / "images")
        with pytest.raises(OutputError, match=r"among which its masks(.|\n)*a\.png(.|\n)*--output_dir"):
            check_apart(tmp_path / out, tmp_path / source, found)

    def test_series_of_slices(self, tmp_path):
        series = [{"name": "ct", "image": str(tmp_path / "ct")}]
        with pytest.raises(OutputError, match="among which"):
            check_apart(tmp_path / "ct", tmp_path / "ct", series)

    @pytest.mark.parametrize("out", ["masks", "images/masks", "images2"])
    def test_folders_apart(self, tmp_path, out):
        check_apart(tmp_path / out, tmp_path / "images", items(tmp_path / "images", "a.png"))

    def test_one_file_may_have_its_mask_beside_it(self, tmp_path):
        found = items(tmp_path / "images", "a.png")
        check_apart(tmp_path / "images", tmp_path / "images/a.png", found)


class TestThreshold:
    @pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf"), "0.5", "nan", True, None, [0.5]])
    def test_refused_by_name_wherever_one_comes_in(self, tmp_path, value):
        makers = [
            check_threshold,
            lambda threshold: PredictionWriter(tmp_path, threshold),
            lambda threshold: SceneSegmenter(None, None, 1, IntensityScaling(), tmp_path, "", threshold),
        ]
        for make in makers:
            with pytest.raises(ConfigError, match=r"threshold is not possible(.|\n)*a number from 0 to 1"):
                make(value)

    @pytest.mark.parametrize("value", [0, 0.25, 1])
    def test_taken(self, tmp_path, value):
        assert PredictionWriter(tmp_path, value).threshold == value
