"""TensorBoard and MLflow get the same numbers and pictures, with the engine's own names and steps."""

import csv
import io
import json
import os
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, LrScheduleHandler, ValidationHandler
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from topolora_monai.engines import (
    Tracker,
    TrainingTracking,
    ValidationTracking,
    prepare_batch,
    probabilities_and_targets,
)
from topolora_monai.engines.tracking import tracker_names
from topolora_monai.errors import ConfigError
from topolora_monai.metrics import PooledDice
from topolora_monai.reports import comparison_figure

SIZE, EPOCHS = 16, 2


def needs_mlflow():
    for module in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(module, reason="MLflow is not installed: pip install 'topolora_monai[tracking]'")


def images(count):
    random = torch.Generator().manual_seed(count)
    label = torch.zeros(1, SIZE, SIZE)
    label[:, 7:9] = 1
    return [
        {"image": torch.rand(3, SIZE, SIZE, generator=random) / 2 + label / 2, "label": label,
         "fov": torch.ones(1, SIZE, SIZE), "name": f"im{number}"}
        for number in range(count)
    ]  # fmt: skip


class Loss(nn.Module):
    def forward(self, logits, target):
        return nn.functional.binary_cross_entropy_with_logits(logits, target["label"])


def train(tracker):
    """Two epochs of two iterations with a validation after each; returns what happened, seen from outside."""
    network = nn.Conv2d(3, 1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    seen = SimpleNamespace(losses=[], dice=[], pictures=[])

    def figure(*arguments):
        seen.pictures.append((arguments[4], comparison_figure(*arguments)))
        return seen.pictures[-1][1]

    evaluator = SupervisedEvaluator(
        torch.device("cpu"), DataLoader(images(3), batch_size=1), network, prepare_batch=prepare_batch,
        postprocessing=lambda one: one | {"pred": one["pred"].sigmoid()},
        key_val_metric={"val_dice": IgniteMetricHandler(PooledDice(), output_transform=probabilities_and_targets)},
        val_handlers=[ValidationTracking(tracker, figure)],
    )  # fmt: skip
    trainer = SupervisedTrainer(
        torch.device("cpu"), EPOCHS, DataLoader(images(4), batch_size=2), network, optimizer, Loss(),
        prepare_batch=prepare_batch,
        train_handlers=[TrainingTracking(tracker, optimizer), LrScheduleHandler(schedule, epoch_level=False,
                        print_lr=False), ValidationHandler(1, evaluator)],
    )  # fmt: skip
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.losses.append(float(engine.state.output[0]["loss"]))
    )
    evaluator.add_event_handler(
        Events.COMPLETED, lambda engine: seen.dice.append(float(engine.state.metrics["val_dice"]))
    )
    trainer.run()
    return seen


def write_evaluation(folder):
    """As an evaluation leaves it; returns the pictures."""
    random = np.random.default_rng(0)
    pictures = {
        name: Image.fromarray(random.integers(0, 255, (12, 20, 3), dtype=np.uint8)) for name in ("im (1)", "im2")
    }
    (folder / "evaluation/pictures").mkdir(parents=True)
    for name, picture in pictures.items():
        picture.save(folder / "evaluation/pictures" / f"{name}.png")
    with (folder / "evaluation/per_image.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "dice"], *([name, "0.5"] for name in [*pictures, "without a picture"])])
    scores = {"dice": 0.75, "hd95": float("nan"), "classes": {"cup": {"dice": 0.5}}}
    (folder / "evaluation/summary.json").write_text(json.dumps({"validation": {"dice": 0.8}, "test": scores}))
    return pictures


def in_tensorboard(folder):
    """Numbers and pictures by name, each with its step."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    pictures = {
        (tag, e.step): np.asarray(Image.open(io.BytesIO(e.encoded_image_string)))
        for tag in events.Tags()["images"]
        for e in events.Images(tag)
    }
    return scalars, pictures


def in_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    scalars = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    root = unquote(run.info.artifact_uri.removeprefix("file://"))
    pictures = {
        (path.relative_to(root).parent.as_posix(), int(path.stem.removeprefix("step_"))): np.asarray(Image.open(path))
        for path in sorted(folder.joinpath(root).rglob("*.png"))
    }
    return scalars, pictures, run


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run with all of it in both: trained, then evaluated by another process's tracker."""
    needs_mlflow()
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tracked") / "my run"
    seen = train(Tracker(["tensorboard", "mlflow"], folder))
    pictures = write_evaluation(folder)
    Tracker("tensorboard,mlflow", folder).record_evaluation()
    scalars, drawn, run = in_mlflow(folder)
    return SimpleNamespace(folder=folder, seen=seen, evaluated=pictures, scalars=scalars, drawn=drawn, run=run)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("board")
    seen = train(Tracker("tensorboard", folder))
    seen.evaluated = write_evaluation(folder)
    Tracker("tensorboard", folder).record_evaluation()
    seen.folder = folder
    seen.scalars, seen.drawn = in_tensorboard(folder)
    return seen


class TestTensorBoard:
    def test_loss_and_the_learning_rate_it_was_stepped_with(self, board):
        assert [step for step, _ in board.scalars["train_loss"]] == [1, 2, 3, 4]
        assert [value for _, value in board.scalars["train_loss"]] == pytest.approx(board.losses)
        assert board.scalars["learning_rate"] == [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]

    def test_validation_dice_of_each_epoch(self, board):
        assert [step for step, _ in board.scalars["val_dice"]] == [1, 2]
        assert [value for _, value in board.scalars["val_dice"]] == pytest.approx(board.dice)

    def test_picture_is_of_the_first_image_of_each_validation(self, board):
        assert [caption for caption, _ in board.pictures] == [f"im0   epoch {n}   threshold 0.50" for n in (1, 2)]
        for step, (_, picture) in enumerate(board.pictures, start=1):
            assert (board.drawn["validation_picture", step] == np.asarray(picture)).all()

    def test_evaluation_scores_and_pictures(self, board):
        scores = {name: values for name, values in board.scalars.items() if "/" in name}
        assert scores.keys() == {"validation/dice", "test/dice", "test/cup/dice"}  # none that is not finite
        assert scores["test/cup/dice"] == [(0, 0.5)]
        assert (board.drawn["test/im2", 0] == np.asarray(board.evaluated["im2"])).all()
        assert (board.drawn["test/im _1_", 0] == np.asarray(board.evaluated["im (1)"])).all()

    def test_nothing_of_mlflow_is_written(self, board):
        assert {path.name for path in board.folder.iterdir()} == {"evaluation", "tensorboard"}


class TestMLflow:
    def test_same_numbers_at_the_same_steps(self, tracked):
        expected, _ = in_tensorboard(tracked.folder)
        assert tracked.scalars.keys() == expected.keys()
        assert len(expected) == 6
        for name, points in expected.items():
            assert [step for step, _ in tracked.scalars[name]] == [step for step, _ in points], name
            values = [value for _, value in points]  # of 32 bits there
            assert [value for _, value in tracked.scalars[name]] == pytest.approx(values, rel=1e-6), name

    def test_numbers_are_those_of_training(self, tracked):
        assert [value for _, value in tracked.scalars["train_loss"]] == pytest.approx(tracked.seen.losses)
        assert [value for _, value in tracked.scalars["val_dice"]] == pytest.approx(tracked.seen.dice)

    def test_same_pictures(self, tracked):
        _, expected = in_tensorboard(tracked.folder)
        assert tracked.drawn.keys() == expected.keys()
        assert len(expected) == 4
        for name, picture in expected.items():
            assert (tracked.drawn[name] == picture).all(), name

    def test_training_and_evaluation_are_one_finished_run(self, tracked):
        assert tracked.run.info.run_name == "my run"
        assert tracked.run.info.status == "FINISHED"
        assert tracked.run.data.tags["output_dir"] == str(tracked.folder)

    def test_run_deleted_there_is_made_anew(self, tracked, tmp_path):
        known = json.loads((tracked.folder / "mlflow_run.json").read_text())
        (tmp_path / "mlflow_run.json").write_text(json.dumps(known | {"run_id": "0" * 32}))
        tracker = Tracker("mlflow", tmp_path, known["uri"])
        tracker.scalars({"a": 1.0}, step=3)
        assert tracker.mlflow.run_id not in (known["run_id"], "0" * 32)
        assert tracker.mlflow.client.get_metric_history(tracker.mlflow.run_id, "a")[0].step == 3
        tracker.mlflow.client.delete_run(tracker.mlflow.run_id)

    def test_address_it_cannot_use(self, tmp_path):
        needs_mlflow()
        with pytest.raises(ConfigError, match="mlflow_uri"):
            Tracker("mlflow", tmp_path, str(tmp_path / "files")).scalars({"a": 1.0}, step=0)


class TestSettings:
    @pytest.mark.parametrize("trackers", [[], "", "[]", "none", None, ("none",)])
    def test_none_writes_nothing(self, trackers, tmp_path):
        tracker = Tracker(trackers, tmp_path)
        train(tracker)
        tracker.record_evaluation()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("trackers", ["mlflow,tensorboard", "[mlflow, TensorBoard]", ("mlflow", "tensorboard")])
    def test_ways_to_name_both(self, trackers):
        assert tracker_names(trackers) == ("mlflow", "tensorboard")

    def test_unknown_name(self, tmp_path):
        with pytest.raises(ConfigError, match="'wandb'"):
            Tracker("tensorboard,wandb", tmp_path)

    def test_missing_library_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "sqlalchemy", None)
        with pytest.raises(ConfigError, match=r"topolora_monai\[tracking\]"):
            Tracker("mlflow", tmp_path).scalars({"a": 1.0}, step=0)

    def test_other_processes_send_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
        train(Tracker("tensorboard", tmp_path))
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_told_to_the_makers_of_mlflow(self, tracked, tmp_path, monkeypatch):
        from mlflow.telemetry import get_telemetry_client

        monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
        Tracker("mlflow", tmp_path).scalars({"a": 1.0}, step=1)
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert get_telemetry_client() is None
