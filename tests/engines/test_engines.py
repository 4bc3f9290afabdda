"""Inferers, handlers, output folder: the pieces of a run on their own."""

import io
import logging
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import CutMixd
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from tests.processes import run_code
from topolora_monai.data import find_images
from topolora_monai.engines import (
    AutocastInferer,
    BatchMixing,
    GradientClipping,
    LossRamp,
    NonFiniteGuard,
    PredictionWriter,
    TargetLoss,
    TimeLeft,
    prepare_batch,
    prepare_output,
    provenance,
    read_json,
    write_json,
)
from topolora_monai.errors import ConfigError, DataError, OutputError, TopoLoRAError
from topolora_monai.losses import TopologyLoss
from topolora_monai.model.inferers import FlipInferer, default_precision
from topolora_monai.transforms import LoadItem


class TestInferers:
    def test_autocast_lowers_precision_inside_and_restores_it_outside(self):
        seen = []

        def network(window):
            product = window.flatten(1) @ torch.ones(window[0].numel(), 4)
            seen.append(product.dtype)
            return product[..., None, None]

        image = torch.rand(2, 1, 4, 4)
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            out = AutocastInferer(SimpleInferer(), precision)(image, network)
            assert seen[-1] == dtype
            assert out.dtype == torch.float32

    def test_unknown_precision(self):
        with pytest.raises(ConfigError, match="fp32, bf16, fp16"):
            AutocastInferer(SimpleInferer(), "int8")

    def test_default_precision_is_usable(self):
        AutocastInferer(SimpleInferer(), default_precision("cpu"))

    @pytest.mark.parametrize(("axes", "copies"), [(0, 1), (1, 2), (2, 4)])
    def test_flips_average_aligned_copies(self, axes, copies):
        calls = []

        def shift(window):  # not equivariant: averaging must make it symmetric
            calls.append(1)
            return window.roll(1, -1)

        image = torch.rand(1, 1, 6, 5)
        out = FlipInferer(SimpleInferer(), axes)(image, shift)
        assert len(calls) == copies
        expected = image.roll(1, -1) if axes == 0 else (image.roll(1, -1) + image.roll(-1, -1)) / 2
        torch.testing.assert_close(out, expected)

    def test_flips_of_a_pointwise_network_change_nothing(self):
        image = torch.rand(1, 1, 20, 30)
        inferer = FlipInferer(AutocastInferer(SlidingWindowInferer((16, 16), overlap=0.5, mode="gaussian"), "fp32"))
        torch.testing.assert_close(inferer(image, lambda window: 2 * window), 2 * image)

    def test_with_quarter_turns_these_are_the_eight_ways_to_lay_a_square(self):
        image, seen = torch.arange(20.0).view(1, 1, 4, 5), []
        out = FlipInferer(SimpleInferer(), 2, quarter_turns=True)(image, lambda window: seen.append(window) or window)
        torch.testing.assert_close(out, image)
        assert len({(*window.shape, *window.flatten().tolist()) for window in seen}) == 8

    def test_turned_copies_are_aligned(self):
        image = torch.rand(1, 1, 6, 6)
        out = FlipInferer(SimpleInferer(), 2, quarter_turns=True)(image, lambda window: window.roll(1, -1))
        around = [image.roll(step, axis) for step in (1, -1) for axis in (-1, -2)]
        torch.testing.assert_close(out, sum(around) / 4)

    def test_three_axes_are_refused(self):
        with pytest.raises(ConfigError):
            FlipInferer(SimpleInferer(), 3)


class TestBatchMixing:
    def mixed(self, prob=1.0, iteration=1, seed=0):
        image = torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 1, 8, 8).clone()
        engine = Engine(lambda *_: None)
        engine.state.iteration = iteration
        engine.state.batch = {"image": image, "label": 10 * image, "name": list("abcd")}
        cutmix = CutMixd("image", batch_size=4, label_keys="label")
        BatchMixing(cutmix, prob, batch_size=4, seed=seed)(engine)
        return engine.state.batch

    def test_image_and_label_get_the_same_rectangle_and_a_step_always_mixes_alike(self):
        batches = [self.mixed(iteration=iteration) for iteration in range(1, 5)]
        for batch in batches:
            assert torch.equal(batch["label"], 10 * batch["image"])
        assert any(len(one.unique()) > 1 for batch in batches for one in batch["image"])
        assert all(set(batch["image"].unique().tolist()) <= {1.0, 2.0, 3.0, 4.0} for batch in batches)
        assert torch.equal(self.mixed(iteration=2)["image"], batches[1]["image"])
        assert not torch.equal(batches[0]["image"], batches[1]["image"])

    def test_share_of_batches(self):
        plain = self.mixed(0.0)["image"]
        changed = [not torch.equal(self.mixed(0.5, iteration)["image"], plain) for iteration in range(40)]
        assert 8 < sum(changed) < 30

    def test_one_crop_alone_is_refused(self):
        with pytest.raises(ConfigError, match="raise --batch_size"):
            BatchMixing(None, 0.5, batch_size=1)
        BatchMixing(None, 0.0, batch_size=1)


def trainer(loss, batches, handlers, accumulation_steps=1, lr=0.1):
    network = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    engine = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
        loss_function=loss,
        prepare_batch=prepare_batch,
        train_handlers=handlers,
        accumulation_steps=accumulation_steps,
    )
    return engine, network


def loader(count=4, value=1.0):
    items = [
        {
            "image": torch.full((1, 4, 4), value),
            "label": torch.ones(1, 4, 4),
            "fov": torch.ones(1, 4, 4),
            "name": f"n{i}",
        }
        for i in range(count)
    ]
    return DataLoader(items, batch_size=1)


class SumLoss(torch.nn.Module):
    def forward(self, logits, target):
        return logits.sum()


class TestHandlers:
    def test_gradient_is_clipped_at_the_step_only(self):
        norms = []
        engine, network = trainer(SumLoss(), loader(4), [GradientClipping(0.5)], accumulation_steps=2)
        engine.optimizer.register_step_pre_hook(
            lambda *_: norms.append(torch.cat([p.grad.flatten() for p in network.parameters()]).norm().item())
        )
        engine.run()
        assert norms == pytest.approx([0.5, 0.5])

    def test_accumulated_gradient_is_not_clipped_half_way(self):
        """Two steps of gradient 16 average to 16; clipping each half to 100 must not change the sum."""
        engine, network = trainer(SumLoss(), loader(2), [GradientClipping(100.0)], accumulation_steps=2, lr=1.0)
        engine.run()
        assert network.weight.item() == pytest.approx(1 - 16)

    def test_loss_that_is_not_a_number_stops_before_the_weights_change(self):
        engine, network = trainer(SumLoss(), loader(2, float("nan")), [NonFiniteGuard()])
        engine.logger.setLevel(logging.CRITICAL)
        with pytest.raises(TopoLoRAError, match="n0"):
            engine.run()
        assert network.weight.item() == 1.0

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_ramp_follows_the_whole_training(self, epochs):
        loss = TopologyLoss({"bce": 1.0, "cldice": 1.0}, ramps={"cldice": 1.0}, iterations=1)
        seen = []
        engine, _ = trainer(TargetLoss(loss), loader(4), [LossRamp(loss, epochs)])
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: seen.append(loss.weight("cldice")))
        engine.run()
        assert seen == pytest.approx([step / epochs for step in (0.0, 0.25, 0.5, 0.75)])

    def test_progress_bar_that_nobody_reads_any_more(self, monkeypatch):
        class Closed(io.StringIO):
            def write(self, text):
                if "0/" not in text:
                    raise BrokenPipeError
                return len(text)

        monkeypatch.setattr("sys.stderr", Closed())
        bar = TimeLeft("training")
        engine, _ = trainer(SumLoss(), loader(3), [bar])

        @engine.on(Events.STARTED)
        def write_at_each_step():
            bar.bar.mininterval = 0

        engine.run()
        assert engine.state.iteration == 3
        locks = tqdm.get_lock().locks  # of the bars of all threads
        with ThreadPoolExecutor(1) as another:
            assert all(another.submit(lambda: [lock.acquire(timeout=5) for lock in locks]).result())
            another.submit(tqdm.get_lock().release).result()

    def test_progress_bar_counts_and_passes_errors_on(self, capsys):
        engine, _ = trainer(SumLoss(), loader(3), [TimeLeft("training")])
        engine.run()
        assert "3/3" in capsys.readouterr().err
        engine, _ = trainer(SumLoss(), loader(2, float("nan")), [TimeLeft("training"), NonFiniteGuard()])
        engine.logger.setLevel(logging.CRITICAL)
        with pytest.raises(TopoLoRAError):
            engine.run()


class TestTargets:
    def test_mask_and_skeleton_reach_the_loss(self):
        batch = {key: torch.rand(1, 1, 8, 8).round() for key in ("image", "label", "fov", "label_skeleton")}
        _, target = prepare_batch(batch, "cpu")
        logits, loss = torch.randn(1, 1, 8, 8), TopologyLoss(iterations=2)
        expected = loss(logits, batch["label"], mask=batch["fov"], skeleton=batch["label_skeleton"])
        assert TargetLoss(loss)(logits, target) == expected
        assert expected != loss(logits, batch["label"])


class TestOutput:
    def test_folder_is_created(self, tmp_path):
        assert prepare_output(tmp_path / "a" / "b").is_dir()

    def test_file_in_the_way(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="is a file"):
            prepare_output(tmp_path / "file")
        with pytest.raises(OutputError, match="cannot be written"):
            prepare_output(tmp_path / "file" / "below")

    @pytest.mark.parametrize("name", ["n" * 5000, "a\0"])
    def test_output_folder_that_cannot_be(self, tmp_path, name):
        with pytest.raises(OutputError, match="cannot be written") as error:
            prepare_output(tmp_path / name)
        assert len(str(error.value)) < 600

    def test_folder_that_cannot_be_written(self):
        with pytest.raises(OutputError, match="cannot be written"):
            prepare_output("/proc/topolora")

    def test_full_disk_is_found_first(self, tmp_path):
        with pytest.raises(OutputError, match="nearly full"):
            prepare_output(tmp_path, needed_bytes=10**18)

    def test_json_is_written_whole(self, tmp_path):
        write_json({"dice": 0.5}, tmp_path / "a.json")
        assert (tmp_path / "a.json").read_text() == '{\n  "dice": 0.5\n}\n'
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(TypeError):
            write_json({"dice": object()}, tmp_path / "a.json")
        assert "0.5" in (tmp_path / "a.json").read_text()

    def test_provenance_describes_this_process(self):
        record = provenance()
        assert record["peak_memory_bytes"] > 10**7
        assert "cores" in record["hardware"]
        assert record["commit"]

    @pytest.mark.parametrize(
        ("program", "words"),
        [("site-packages/monai/bundle/__main__.py", "-m monai.bundle"), ("scripts/study.py", "scripts/study.py")],
    )
    def test_provenance_says_the_command_as_typed(self, monkeypatch, program, words):
        monkeypatch.setattr(sys, "argv", [program, "run", "a b"])
        assert provenance()["command"] == f"python {words} run 'a b'"

    def test_plain_errors_without_traceback(self):
        script = (
            "from topolora_monai.engines import speak_plainly\n"
            "from topolora_monai.errors import DataError\n"
            "speak_plainly()\n"
            "try:\n    raise DataError('mask is broken', path='a.png')\n"
            "except DataError as error:\n    raise RuntimeError('Failed to instantiate') from error\n"
        )
        done = run_code(script)
        assert done.returncode == 1
        assert done.stderr.strip() == "error: mask is broken: a.png"
        other = script.replace("DataError('mask is broken', path='a.png')", "ValueError('x')").replace(
            "except DataError", "except ValueError"
        )
        assert "Traceback" in run_code(other).stderr

    @pytest.mark.parametrize(("note", "said"), [(None, "stopped"), ("it resumes", "stopped; it resumes")])
    def test_ctrl_c_is_a_sentence(self, note, said):
        script = (
            "from topolora_monai.engines.output import say_if_stopped, speak_plainly\n"
            "speak_plainly()\n"
            f"note = {note!r}\n"
            "note and say_if_stopped(note)\n"
            "raise KeyboardInterrupt\n"
        )
        done = run_code(script)
        assert (done.returncode, done.stderr.strip()) == (130, said)

    @pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "NaN"])
    def test_damaged_json_is_named(self, tmp_path, content):
        (tmp_path / "training.json").write_text(content)
        with pytest.raises(DataError, match=r"damaged.*training\.json[^$]*evaluate again"):
            read_json(tmp_path / "training.json", "evaluate again")
        with pytest.raises(DataError, match="missing"):
            read_json(tmp_path / "none.json", "evaluate again")


class TestPredictionWriter:
    class Engine:
        def __init__(self, planes):
            from types import SimpleNamespace

            self.state = SimpleNamespace(batch=[{"name": "scan"}], output=[{"pred": planes}])

    def test_mask_and_probability_agree_at_the_threshold(self, tmp_path):
        planes = torch.tensor([[[0.0, 0.25, 0.2499, 0.5, 1.0]]])
        PredictionWriter(tmp_path, threshold=0.25)(self.Engine(planes))
        mask = np.asarray(Image.open(tmp_path / "scan_mask.png"))
        stored = np.asarray(Image.open(tmp_path / "scan_probability.png"))
        assert mask.tolist() == [[0, 255, 0, 255, 255]]
        assert stored.dtype == np.uint16
        assert stored.tolist() == [[0, 16384, math.floor(0.2499 * 65536), 32768, 65535]]

    @pytest.mark.parametrize("threshold", [0.0, 0.5])
    def test_no_data_is_background(self, tmp_path, threshold):
        engine = self.Engine(torch.full((1, 2, 3), 0.9))
        engine.state.batch[0]["fov"] = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]])
        PredictionWriter(tmp_path, threshold)(engine)
        valid = np.array([[1, 0, 1], [0, 1, 1]])
        assert np.array_equal(np.asarray(Image.open(tmp_path / "scan_mask.png")), 255 * valid)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "scan_probability.png")), 58982 * valid)

    @pytest.mark.parametrize(("classes", "activation"), [(1, "sigmoid"), (2, "softmax")])
    def test_nan_voxels_of_a_volume_are_background(self, tmp_path, classes, activation):
        values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
        values[np.random.default_rng(1).random(values.shape) < 0.4] = np.nan
        nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
        writer = PredictionWriter(tmp_path, activation=activation)
        engine = self.Engine(torch.full((classes, 5, 6), 0.9 / classes))
        for item in find_images(tmp_path / "scan.nii.gz"):
            engine.state.batch = [LoadItem(1)(item)]
            writer(engine)
        suffix = "_1" if classes > 1 else ""
        for name, value in (("mask", 1), (f"probability{suffix}", 58982 // classes)):
            written = np.asarray(nib.load(tmp_path / f"scan_{name}.nii.gz").dataobj)
            assert np.array_equal(written, np.where(np.isnan(values), 0, value))

    def test_one_file_a_class(self, tmp_path):
        PredictionWriter(tmp_path)(self.Engine(torch.rand(2, 4, 4)))
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            f"scan_{kind}_{index}.png" for kind in ("mask", "probability") for index in (1, 2)
        ]

    def test_unwritable_folder(self, tmp_path):
        with pytest.raises(OutputError, match=r"scan_mask\.png"):
            PredictionWriter(tmp_path / "none")(self.Engine(torch.rand(1, 4, 4)))
