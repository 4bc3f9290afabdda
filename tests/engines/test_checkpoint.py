"""What a run saves, what it takes up again, and what it refuses to."""

import json
import logging
import warnings

import pytest
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler
from monai.transforms import Activationsd
from torch.utils.data import DataLoader

from topolora_monai.adapters import adapt, preset_config
from topolora_monai.data import record_split
from topolora_monai.engines import (
    AdapterEMA,
    NonFiniteGuard,
    Recipe,
    RunCheckpoint,
    ScheduleSteps,
    lr_schedule,
    prepare_batch,
    probabilities_and_targets,
)
from topolora_monai.errors import AdapterFileError, ConfigError, DataError, OutputError, TopoLoRAError
from topolora_monai.metrics import PooledDice

CONFIG = {
    "epochs": 1,
    "learning_rate": "$1e-2",
    "batch_size": 1,
    "half": "$@batch_size / 2",
    "output_dir": "runs/a",
    "loss": {"_target_": "SumLoss", "scale": [1, 2]},
    "recipe": {
        "_target_": "topolora_monai.engines.Recipe", "elsewhere": ["output_dir"],
        "may_change": ["epochs", "learning_rate"],
    },
}  # fmt: skip


def items(count=2):
    one = {"image": torch.ones(1, 4, 4), "label": torch.ones(1, 4, 4), "fov": torch.ones(1, 4, 4)}
    return [{**one, "name": f"n{number}"} for number in range(count)]


class Run:
    """A training of one convolution, small enough to be started many times."""

    def __init__(
        self, folder, split=None, channels=1, poison=None, accumulation_steps=1, resume=True, val_interval=10**6,
        ema_decay=0.0, **config
    ):  # fmt: skip
        parser = ConfigParser(CONFIG | {key: value for key, value in config.items() if "#" not in key})
        for key, value in config.items():
            parser[key] = value
        self.recipe = parser.get_parsed_content("recipe")
        for name in ("epochs", "learning_rate", "half"):
            parser.get_parsed_content(name)
        torch.manual_seed(0)
        self.network = torch.nn.Conv2d(1, 1, channels, padding="same")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=parser.get_parsed_content("learning_rate"))
        epochs = parser.get_parsed_content("epochs")
        schedule = lr_schedule(self.optimizer, "polynomial", 2 * epochs)
        dice = PooledDice()
        loader = DataLoader(items(), batch_size=1)
        metric = IgniteMetricHandler(metric_fn=dice, output_transform=probabilities_and_targets)
        evaluator = SupervisedEvaluator(
            "cpu", loader, self.network, prepare_batch=prepare_batch, key_val_metric={"val_dice": metric},
            postprocessing=Activationsd("pred", sigmoid=True),
        )  # fmt: skip
        self.checkpoint = RunCheckpoint(
            folder, adapt(self.network, preset_config("full")), self.optimizer, schedule, evaluator, dice, {"seed": 0},
            self.recipe, split or {"root": "/", "training": {}, "validation": {}, "test": {}}, {}, resume=resume,
            ema=AdapterEMA(self.network, self.optimizer, ema_decay),
        )  # fmt: skip
        self.rates = []
        handlers = [
            ScheduleSteps(schedule, self.optimizer),
            ValidationHandler(val_interval, evaluator),
            self.checkpoint,
        ]
        self.trainer = SupervisedTrainer(
            device="cpu", max_epochs=epochs, train_data_loader=loader, network=self.network, optimizer=self.optimizer,
            loss_function=lambda logits, _: logits.mean(), prepare_batch=prepare_batch, train_handlers=handlers,
            accumulation_steps=accumulation_steps,
        )  # fmt: skip
        self.trainer.logger.setLevel(logging.CRITICAL)
        self.optimizer.register_step_pre_hook(lambda optimizer, *_: self.rates.append(optimizer.param_groups[0]["lr"]))
        if poison is not None:
            self.optimizer.register_step_post_hook(
                lambda *_: self.network.weight.data.fill_(poison) if self.trainer.state.epoch == epochs else None
            )

    def __call__(self):
        self.trainer.run()
        return self


def saved(folder):
    return torch.load(folder / "last.pt", weights_only=True)


class TestRecipe:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"batch_size": 2}, "--batch_size 2, was 1"),
            ({"loss#scale": [1, 3]}, r"--loss#scale \[1, 3\], was \[1, 2\]"),
            ({"loss#_target_": "OtherLoss"}, "--loss#_target_ OtherLoss, was SumLoss"),
            ({"half": "$@batch_size / 4"}, "--half 0.25, was 0.5"),
            ({"new": "anything"}, "--new anything, was None"),
        ],
    )
    def test_whatever_the_configuration_says_is_compared(self, tmp_path, change, said):
        Run(tmp_path)()
        with pytest.raises(ConfigError, match=f"other settings.*\n  found:    {said}\n"):
            Run(tmp_path, epochs=2, **change)()
        assert Run(tmp_path, resume=False, **change)().trainer.state.epoch == 1

    @pytest.mark.parametrize("same", [{"output_dir": "b"}, {"learning_rate": 1e-2}, {"half": 0.5}])
    def test_places_and_other_words_for_the_same_value_do_not_count(self, tmp_path, same):
        Run(tmp_path)()
        assert Run(tmp_path, **same)().checkpoint.changes == []

    def test_what_matters_for_the_future_alone_may_change_and_is_kept(self, tmp_path, caplog):
        before = Run(tmp_path)()
        caplog.clear()
        after = Run(tmp_path, epochs=3, learning_rate=1e-3)()
        assert "learning_rate 0.001 from epoch 2 on, 0.01 before" in caplog.messages
        changes = [{"after_epoch": 1, "epochs": [1, 3], "learning_rate": [0.01, 0.001]}]
        assert json.loads((tmp_path / "training.json").read_text())["changes"] == changes
        assert before.rates[0] == 1e-2
        whole = [1e-3 * (1 - step / 6) ** 0.9 for step in range(6)]
        assert after.rates[1:] == pytest.approx(whole[3:])
        again = Run(tmp_path, epochs=4, learning_rate=1e-3)()
        assert [change["after_epoch"] for change in again.checkpoint.changes] == [1, 3]

    def test_other_base_weights_and_number_of_processes(self, tmp_path, monkeypatch):
        Run(tmp_path)()
        monkeypatch.setattr("topolora_monai.engines.checkpoint.idist.get_world_size", lambda: 2)
        with pytest.raises(ConfigError, match="number of processes 2, was 1"):
            Run(tmp_path)()
        monkeypatch.undo()
        state = saved(tmp_path)
        state["recipe"]["SHA-256 of the base weights"]["text"] = "0" * 64
        torch.save(state, tmp_path / "last.pt")
        with pytest.raises(ConfigError, match="SHA-256 of the base weights"):
            Run(tmp_path)()

    def test_outside_of_a_configuration(self):
        with pytest.raises(ConfigError, match="part of a configuration"):
            Recipe()


class TestImages:
    @pytest.fixture
    def split(self, tmp_path):
        (tmp_path / "run").mkdir()

        def write(**contents):
            found = {}
            for name, content in contents.items():
                (tmp_path / name).write_text(content)
                split, _, number = name.partition("_")
                found.setdefault(split, []).append({"name": number, "image": str(tmp_path / name)})
            return record_split(tmp_path, **{"training": [], "validation": [], "test": [], **found})

        return write

    def test_others_are_refused_by_name(self, tmp_path, split):
        Run(tmp_path / "run", split(training_a="a", training_b="b", test_c="c"))()
        for changed, said in (
            (split(training_a="A", training_b="b", test_c="c"), r"a \(training\): other image"),
            (split(training_a="a", test_c="c"), "b: was for training, is gone"),
            (split(training_a="a", training_b="b", validation_c="c"), "c: was for test, now for validation"),
            (split(training_a="a", training_b="b", training_d="d"), "d: is new, now for training"),
        ):
            with pytest.raises(DataError, match=said):
                Run(tmp_path / "run", changed, epochs=2)()
        more_tests = split(training_a="a", training_b="b", test_c="c", test_d="d")
        Run(tmp_path / "run", more_tests, epochs=2)()
        assert json.loads((tmp_path / "run/split.json").read_text()) == more_tests

    def test_record_is_there_before_the_first_epoch_ends(self, tmp_path, split):
        run = Run(tmp_path / "run", split(training_a="a"))
        run.checkpoint._begin(run.trainer)
        assert "a" in json.loads((tmp_path / "run/split.json").read_text())["training"]


class TestLastState:
    def test_values_that_are_not_finite_are_not_saved(self, tmp_path):
        Run(tmp_path)()
        good = (tmp_path / "last.pt").read_bytes()
        adapter = (tmp_path / "adapter.safetensors").read_bytes()
        for poison in (float("nan"), float("inf")):
            with pytest.raises(TopoLoRAError, match=r"diverged.*\n.*weight"):
                Run(tmp_path, poison=poison, epochs=2)()
            assert (tmp_path / "last.pt").read_bytes() == good
            assert (tmp_path / "adapter.safetensors").read_bytes() == adapter
        assert Run(tmp_path, epochs=2, learning_rate=1e-4)().trainer.state.epoch == 2

    def test_diverged_weights_are_found_by_the_validation(self):
        network = torch.nn.Conv2d(1, 1, 1)
        network.weight.data.fill_(float("nan"))
        loader = DataLoader(items(), batch_size=1)
        evaluator = SupervisedEvaluator(
            "cpu", loader, network, prepare_batch=prepare_batch, val_handlers=[NonFiniteGuard()]
        )
        evaluator.logger.setLevel(logging.CRITICAL)
        with pytest.raises(
            TopoLoRAError, match=r"the network's answer is no longer finite in epoch 3[^$]*n0[^$]*resume"
        ):
            evaluator.run(3)

    @pytest.mark.parametrize(
        ("edit", "error", "said"),
        [
            (lambda state: state["adapter"].pop("weight"), AdapterFileError, r"missing \['weight'\]"),
            (lambda state: state["adapter"].update(more=torch.ones(1)), AdapterFileError, r"unexpected \['more'\]"),
            (lambda state: state["adapter"].update(weight=torch.ones(3)), AdapterFileError, r"other shape.*'weight'"),
            (lambda state: state["adapter"]["weight"].fill_(float("nan")), AdapterFileError, "not finite"),
            (lambda state: state["optimizer"]["state"].clear(), None, None),  # as before the first step
            (lambda state: state["optimizer"].pop("param_groups"), ConfigError, "cannot be read"),
            (lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.ones(7)), ConfigError, "another shape"),
            (lambda state: state["optimizer"]["param_groups"].append({}), ConfigError, "cannot be read"),
            (lambda state: state.pop("recipe"), ConfigError, "of another version"),
            (lambda state: state.clear(), ConfigError, "of another version"),
        ],
    )
    def test_a_state_of_another_form_is_refused(self, tmp_path, edit, error, said):
        Run(tmp_path)()
        state = saved(tmp_path)
        edit(state)
        torch.save(state, tmp_path / "last.pt")
        if error is None:
            Run(tmp_path, epochs=2)()
            return
        with pytest.raises(error, match=said) as raised:
            Run(tmp_path, epochs=2)()
        assert "--resume false" in str(raised.value)

    @pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04."])
    def test_a_damaged_file_is_refused(self, tmp_path, content):
        (tmp_path / "last.pt").write_bytes(content)
        with pytest.raises(ConfigError, match=r"cannot be read.*last\.pt"):
            Run(tmp_path)()

    def test_a_finished_run_is_not_trained_on(self, tmp_path):
        Run(tmp_path, epochs=3)()
        for epochs in (3, 2):
            again = Run(tmp_path, epochs=epochs)()
            assert (again.trainer.state.epoch, again.rates) == (3, [])

    def test_what_is_put_into_the_network_between_starts_stays(self, tmp_path):
        Run(tmp_path)()
        run = Run(tmp_path, epochs=3)
        before = run.network.weight.item()
        for epochs in (2, 3):
            run.network.weight.data.fill_(7.0)
            run.trainer.state.max_epochs = epochs
            run()
            assert run.network.weight.item() == pytest.approx(7.0, abs=0.1) != before
            assert run.trainer.state.epoch == epochs

    def test_folder_that_is_removed_meanwhile(self, tmp_path):
        run = Run(tmp_path / "gone")
        with pytest.raises(OutputError, match="was removed"):
            run()

    def test_full_disk(self, tmp_path, monkeypatch):
        def full(*_):
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

        Run(tmp_path)()
        good = (tmp_path / "last.pt").read_bytes()
        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match="free some space"):
            Run(tmp_path, epochs=2)()
        assert (tmp_path / "last.pt").read_bytes() == good

    def test_starting_over_forgets_the_finished_run(self, tmp_path):
        Run(tmp_path)()
        run = Run(tmp_path, resume=False)
        run.checkpoint._begin(run.trainer)
        assert not (tmp_path / "training.json").exists()


class TestSchedule:
    def test_it_moves_with_the_optimiser(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run = Run(tmp_path, accumulation_steps=2, epochs=2)()
            assert run.rates == pytest.approx([1e-2, 1e-2 * 0.75**0.9])
            assert Run(tmp_path, resume=False, epochs=2)().rates == pytest.approx(
                [1e-2 * (1 - step / 4) ** 0.9 for step in range(4)]
            )
