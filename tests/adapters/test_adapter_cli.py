"""``topolora adapter info | verify | merge | diff``, and what a closed pipe does to any command."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.pages import commands
from topolora_monai.adapters import adapt, load_adapter, preset_config, save_adapter
from topolora_monai.adapters.inspection import compare_adapters
from topolora_monai.cli import main
from topolora_monai.errors import AdapterFileError
from topolora_monai.io.download import file_sha256
from topolora_monai.networks import build_network
from topolora_monai.release.merged_file import load_merged, read_merged_spec

IMAGE = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(3))
PROPERTIES = {"image_size": 64, "crop_size": 32, "in_channels": 3, "out_channels": 1, "fit": "pad", "threshold": 0.4,
              "labels": ["background", "[bold]vessel"], "dataset": "drive"}  # fmt: skip


def write(path, preset="topolora", seed=0, **settings):
    path.parent.mkdir(exist_ok=True)
    adaptation = adapt(build_network("vit_tiny_test", image_size=64), preset_config(preset, **settings))
    generator = torch.Generator().manual_seed(seed)
    for parameter in adaptation.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    save_adapter(adaptation, path, **PROPERTIES)
    return adaptation


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.safetensors"
    save_file(build_network("vit_tiny_test").state_dict(), path)
    return path


def edit(path, change):
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    state = load_file(path)
    change(state, metadata)
    save_file(state, path, metadata=metadata)


class TestInfo:
    def test_table_tells_everything(self, file, capsys):
        assert main(["adapter", "info", str(file)]) == 0
        shown = capsys.readouterr().out
        facts = {line.split("  ")[0].strip(): line for line in shown.splitlines()}
        assert "topolora" in facts["method"]
        assert "targets mlp; first_block 0; r 8; lora_alpha 16" in facts["lora"]
        assert "conv_adapter true" in facts["further"]
        assert "vit_tiny_test" in facts["base"]
        assert "[bold]vessel" in facts["labels"]
        assert facts["pixel scale"].split()[-1] == "2"
        assert facts["threshold"].split()[-1] == "0.4"
        assert "drive" in facts["dataset"]
        assert file_sha256(file) in facts["file SHA-256"]
        assert f"{file.stat().st_size:,} bytes" in facts["file size"]
        numbers = [tensor.numel() for tensor in load_file(file).values()]
        assert facts["tensors"].split()[-1] == f"{len(numbers):,}"
        assert facts["parameters"].split()[-1] == f"{sum(numbers):,}"

    def test_json(self, file, capsys):
        assert main(["adapter", "info", str(file), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["sha256"] == file_sha256(file)
        assert told["pixel_scale"] == 2
        assert told["header"]["adaptation"]["lora"]["r"] == 8
        assert told["parameters"] == sum(tensor.numel() for tensor in load_file(file).values())

    def test_file_that_says_less(self, tmp_path, capsys):
        adaptation = adapt(build_network("vit_tiny_test"), preset_config("adapter_only"))
        save_adapter(adaptation, tmp_path / "bare.safetensors")
        assert main(["adapter", "info", str(tmp_path / "bare.safetensors")]) == 0
        shown = capsys.readouterr().out.splitlines()
        facts = {line.split("  ")[0].strip(): line.split()[-1] for line in shown if line.strip()}
        assert (facts["image_size"], facts["crop_size"], facts["pixel scale"], facts["threshold"]) == (
            "1024", "1024", "1", "0.5")  # fmt: skip

    def test_bad_files(self, file, base, capsys):
        whole = file.read_bytes()
        bad = {"none": None, "empty": b"", "cut": whole[:500], "text": b"no tensors in here", "foreign": b""}
        for name, content in bad.items():
            path = base if name == "foreign" else file.with_name(name)
            if content is not None and name != "foreign":
                path.write_bytes(content)
            for command in (
                ["info", path],
                ["verify", path],
                ["merge", path, "--out", file.with_name("m.safetensors")],
            ):
                assert main(["adapter", *map(str, command)]) == 1
                assert str(path) in capsys.readouterr().err
        assert main(["adapter", "diff", str(file), str(base)]) == 2
        assert "not an adapter of topolora_monai" in capsys.readouterr().err


class TestVerify:
    def test_with_and_without_base(self, file, base, capsys):
        assert main(["adapter", "verify", str(file), "--weights", str(base)]) == 0
        assert "base weights are those" in capsys.readouterr().out
        edit(file, lambda state, metadata: rename_base(metadata))
        assert main(["adapter", "verify", str(file)]) == 0
        assert "base weights not compared" in capsys.readouterr().out
        assert main(["adapter", "verify", str(file), "--weights", str(base)]) == 1
        assert "other base weights" in capsys.readouterr().err

    @pytest.mark.parametrize("with_base", [False, True])
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda state, _: state.update(extra=torch.zeros(1)), "unexpected ['extra']"),
            (lambda state, _: state.pop("mask_decoder.mask_tokens.weight"), "missing ['mask_decoder.mask_tokens"),
            (lambda state, _: state["mask_decoder.mask_tokens.weight"].fill_(torch.inf), "not finite"),
            (lambda _, metadata: rename_base(metadata, adaptation={"preset": "lora"}), "trains nothing"),
            (lambda _, metadata: rename_base(metadata, network_name="vit_x"), "network of the adapter cannot be built"),
        ],
    )
    def test_defects_are_named(self, file, base, change, told, with_base, capsys):
        edit(file, change)
        weights = ["--weights", str(base)] if with_base else []
        assert main(["adapter", "verify", str(file), *weights]) == 1
        shown = capsys.readouterr().err
        assert told in shown
        assert str(file) in shown


def test_commands_of_the_page_run_as_printed(file, tmp_path, monkeypatch, capsys):
    printed = [words for words in commands("docs/choosing.md") if words[1] == "adapter"]
    assert [words[2] for words in printed] == ["info", "verify", "merge", "diff"]
    monkeypatch.chdir(tmp_path)
    save_file(build_network("vit_tiny_test").state_dict(), "mobile_sam.safetensors")
    for name in ("adapter", "other"):
        write(tmp_path / f"runs/{name}.safetensors")
    for words in printed:
        places = {
            "runs/drive/adapter.safetensors": "runs/adapter.safetensors",
            "runs/other/adapter.safetensors": "runs/other.safetensors",
            "mobile_sam.pt": "mobile_sam.safetensors",
        }
        assert main([places.get(word, word) for word in words[1:]]) == 0, capsys.readouterr()
    assert load_merged("vessels.safetensors").image_size == 64


def rename_base(metadata, **changes):
    header = json.loads(metadata["topolora_monai"])
    metadata["topolora_monai"] = json.dumps(header | (changes or {"base_sha256": "0" * 64}))


class TestMerge:
    @pytest.mark.parametrize("preset", ["topolora", "conv_lora", "topolora_conv", "full"])
    def test_merged_equals_adapted(self, preset, tmp_path, base):
        write(tmp_path / "a.safetensors", preset)
        out = tmp_path / "new/merged.safetensors"
        arguments = ["adapter", "merge", tmp_path / "a.safetensors", "--weights", base, "--out", out]
        assert main([str(word) for word in arguments]) == 0
        adapted = load_adapter(build_network("vit_tiny_test", weights=base, image_size=64), tmp_path / "a.safetensors")
        merged = load_merged(out)
        with torch.no_grad():
            expected = adapted.network.eval()(IMAGE)
            plain = build_network("vit_tiny_test", weights=base, image_size=64)(IMAGE)
            torch.testing.assert_close(merged(IMAGE), expected, rtol=1e-5, atol=1e-5)
        assert (expected - plain).abs().max() > 0.1
        factors = [key for key in load_file(out) if ".lora_" in key]
        assert bool(factors) == ("conv" in preset)  # plain LoRA is folded, mixtures of convolutions stay
        spec = read_merged_spec(out)
        assert spec.further["adapter_sha256"] == file_sha256(tmp_path / "a.safetensors")
        assert (list(spec.labels), spec.threshold) == (PROPERTIES["labels"], 0.4)

    def test_overwrites_only_when_told(self, file, capsys):
        out = file.with_name("merged.safetensors")
        out.write_text("precious")
        arguments = ["adapter", "merge", str(file), "--out", str(out)]
        assert main(arguments) == 1
        assert "--force" in capsys.readouterr().err
        assert out.read_text() == "precious"
        assert main([*arguments, "--force"]) == 0
        assert load_merged(out).image_size == 64
        assert not list(file.parent.glob(".*part*"))

    def test_impossible_places_and_bases(self, file, base, tmp_path, capsys):
        (tmp_path / "taken").touch()
        cases = [
            (["--out", tmp_path / "model.pt"], "ends in .safetensors"),
            (["--out", tmp_path / "taken/m.safetensors"], "cannot write the merged network"),
            (["--out", tmp_path / "m.safetensors", "--weights", tmp_path / "none.pth"], "checkpoint not found"),
        ]
        state = load_file(base)
        state["image_encoder.pos_embed"] += 1
        save_file(state, tmp_path / "other.safetensors")
        cases.append((["--out", tmp_path / "m.safetensors", "--weights", tmp_path / "other.safetensors"], "other base"))
        for words, told in cases:
            assert main(["adapter", "merge", str(file), *map(str, words)]) == 1
            assert told in capsys.readouterr().err
        assert not (tmp_path / "m.safetensors").exists()

    def test_damaged_merged_file_is_refused(self, file, tmp_path):
        out = tmp_path / "merged.safetensors"
        assert main(["adapter", "merge", str(file), "--out", str(out)]) == 0
        edit(out, lambda state, metadata: state.pop("mask_decoder.mask_tokens.weight"))
        with pytest.raises(AdapterFileError, match=r"merged network cannot be loaded"):
            load_merged(out)
        with pytest.raises(AdapterFileError, match="not a merged network"):
            load_merged(file)


class TestDiff:
    def test_equal(self, file, tmp_path, capsys):
        write(tmp_path / "b.safetensors")
        assert main(["adapter", "diff", str(file), str(tmp_path / "b.safetensors")]) == 0
        assert "equal" in capsys.readouterr().out

    def test_former_names_of_settings_are_the_present_ones(self, file, tmp_path, capsys):
        def rename(_, metadata):
            header = json.loads(metadata["topolora_monai"])
            lora = header["adaptation"]["lora"]
            for former, present in {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}.items():
                lora[former] = lora.pop(present)
            del lora["use_rslora"]  # which older versions did not have
            metadata["topolora_monai"] = json.dumps(header)

        other = tmp_path / "b.safetensors"
        write(other)
        edit(other, rename)
        assert main(["adapter", "diff", str(file), str(other)]) == 0, capsys.readouterr().out
        edit(
            other,
            lambda _, metadata: metadata.update(
                {"topolora_monai": metadata["topolora_monai"].replace('"rank": 8', '"rank": 4')}
            ),
        )
        assert compare_adapters(file, other).settings == {"adaptation.lora.r": (8, 4)}

    def test_settings_tensors_and_keys(self, file, tmp_path, capsys):
        other = tmp_path / "b.safetensors"
        write(other, "lora", seed=1, lora={"rank": 4})
        edit(other, lambda state, _: state["mask_decoder.iou_token.weight"].mul_(2))
        assert main(["adapter", "diff", str(file), str(other)]) == 1
        shown = capsys.readouterr().out
        row = next(line for line in shown.splitlines() if line.startswith("adaptation.lora.r"))
        assert row.split() == ["adaptation.lora.r", "8", "4"]
        assert "only in the first: embedding_adapter.block.0.weight" in shown
        assert "of another shape or type: image_encoder.blocks.0.mlp.lin1.lora_A.default.weight" in shown

    def test_numbers_of_a_group(self, file, tmp_path):
        other = tmp_path / "b.safetensors"
        other.write_bytes(file.read_bytes())
        tokens = load_file(file)["mask_decoder.mask_tokens.weight"].double()

        def change(state, metadata):
            state["mask_decoder.mask_tokens.weight"][0] *= -3

        edit(other, change)
        changed = load_file(other)["mask_decoder.mask_tokens.weight"].double()
        comparison = compare_adapters(file, other)
        assert not comparison.equal
        assert comparison.settings == {}
        groups = {group.group: group for group in comparison.groups}
        found = groups["mask_decoder.mask_tokens"]
        assert found.norms == pytest.approx((float(tokens.norm()), float(changed.norm())))
        assert found.relative_difference == pytest.approx(float((tokens - changed).norm() / changed.norm()))
        cosine = torch.nn.functional.cosine_similarity(tokens.flatten(), changed.flatten(), dim=0)
        assert found.cosine == pytest.approx(float(cosine))
        lora = groups["image_encoder lora_A"]
        assert (lora.tensors, lora.relative_difference) == (8, 0)
        assert lora.cosine == pytest.approx(1)


@pytest.mark.parametrize(("arguments", "status"), [(["data", "info", "drive"], 141), (["--help"], 0)])
def test_closed_pipe_is_no_crash(arguments, status):
    """As in ``topolora ... | head``, where nobody reads to the end."""
    command = [sys.executable, "-c", CLOSED_PIPE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "", done.stderr
    assert done.returncode == status


CLOSED_PIPE = """
import os, sys
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
from topolora_monai.cli import main
sys.exit(main(sys.argv[1:]))
"""
