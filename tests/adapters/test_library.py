"""Several adapters on one base: each answers as if it were alone, in the memory of one base, which never changes."""

import threading

import pytest
import torch

from topolora_monai.adapters import AdapterLibrary, adapt, load_adapter, merge, preset_config, save_adapter
from topolora_monai.errors import AdapterFileError, ConfigError
from topolora_monai.networks import build_network
from topolora_monai.weights import fingerprint

NAME = "vit_tiny_test"
IMAGE = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(3))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # kernels differ with the place of tensors in memory; adapters by over 1e-3
# name: preset, its settings, settings of the network
ADAPTERS = {
    "lora": ("lora", {"lora": {"rank": 2}, "train_decoder": False}, {"image_size": 64}),
    "late": ("lora", {"lora": {"rank": 4, "targets": ("qkv",), "first_block": 2}}, {"image_size": 128}),
    "topolora": ("topolora", {"conv_adapter_norm": "batch"}, {"image_size": 64, "fit": "squash"}),
    "conv_lora": ("conv_lora", {}, {"image_size": 96}),
    "decoder": ("decoder_only", {}, {"image_size": 64}),
    "classes": ("lora", {}, {"image_size": 64, "out_channels": 3}),
    "bands": ("adapter_only", {}, {"image_size": 64, "in_channels": 5}),
    "full": ("full", {}, {"image_size": 64}),
}


def image_for(name):
    channels = ADAPTERS.get(name, (None, None, {}))[2].get("in_channels", 3)
    return IMAGE.repeat(1, 2, 1, 1)[:, :channels]


def logits(network, name="lora"):
    with torch.no_grad():
        return network(image_for(name))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for number, (name, (preset, settings, shape)) in enumerate(ADAPTERS.items()):
        adaptation = adapt(build_network(NAME, **shape), preset_config(preset, **settings))
        generator = torch.Generator().manual_seed(number)
        for parameter in adaptation.trainable().values():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        properties = {"image_size": 64, "crop_size": 32, "in_channels": 3, "out_channels": 1, "fit": "pad"} | shape
        save_adapter(adaptation, folder / f"{name}.safetensors", **properties, threshold=number / 10)
    return folder


@pytest.fixture(scope="module")
def base():
    return build_network(NAME, image_size=256)


@pytest.fixture
def library(base, files):
    library = AdapterLibrary(base)
    for name in ADAPTERS:
        library.load(name, files / f"{name}.safetensors")
    return library


def test_each_answers_as_when_loaded_alone(library, files):
    seen = []
    for name in [*ADAPTERS, *reversed(ADAPTERS)]:
        alone = build_network(NAME, **ADAPTERS[name][2])
        expected = logits(load_adapter(alone, files / f"{name}.safetensors").network, name)
        with library.use(name) as network:
            torch.testing.assert_close(logits(network, name), expected, **CLOSE)
        seen.append(expected)
    of_one_shape = [answer for answer in seen[: len(ADAPTERS)] if answer.shape[1] == 1]
    for index, answer in enumerate(of_one_shape):  # or the comparison above would tell nothing
        assert all((answer - other).abs().max() > 1e-3 for other in of_one_shape[index + 1 :])


def test_base_is_never_changed(base, library):
    before, flags = fingerprint(base.state_dict()), [p.requires_grad for p in base.parameters()]
    fresh = build_network(NAME, image_size=256)
    assert before == fingerprint(fresh.state_dict())
    with library.use("topolora") as network:
        merge(network)
    with library.use(library.BASE) as network:
        torch.testing.assert_close(logits(network), logits(fresh), **CLOSE)
    assert fingerprint(base.state_dict()) == before
    assert [p.requires_grad for p in base.parameters()] == flags


def test_memory_is_the_base_and_what_was_trained(base, library, files):
    """Every tensor is the base's own memory or in the adapter's file; values and places are both looked at."""
    places = {tensor.data_ptr() for tensor in base.state_dict().values()}
    for name in ADAPTERS:
        stored = set(files_keys(files / f"{name}.safetensors"))
        with library.use(name) as network:
            state = network.state_dict()
        own = {key for key, tensor in state.items() if tensor.data_ptr() not in places}
        assert own == stored, name


def files_keys(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def test_header_tells_how_to_prepare_a_request(library):
    assert library.spec("late").image_size == 128
    assert library.spec("topolora").fit == "squash"
    assert library.spec("decoder").threshold == 0.4
    assert library.spec(library.BASE) is None


def test_requests_of_many_threads_get_their_own_adapter(library):
    names = [library.BASE, *ADAPTERS]
    expected = {}
    for name in names:
        with library.use(name) as network:
            expected[name] = logits(network, name)
    wrong = []

    def serve(offset):
        for step in range(len(names)):
            name = names[(offset + step) % len(names)]
            with library.use(name) as network:
                if not torch.allclose(logits(network, name), expected[name], **CLOSE):
                    wrong.append(name)

    threads = [threading.Thread(target=serve, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_adapter_serves_one_request_at_a_time_and_others_go_on(library):
    entered = {name: threading.Event() for name in ("lora", "late")}

    def enter(name):
        with library.use(name):
            entered[name].set()

    with library.use("lora"):
        threads = [threading.Thread(target=enter, args=(name,)) for name in entered]
        for thread in threads:
            thread.start()
        assert entered["late"].wait(timeout=30)
        assert not entered["lora"].wait(timeout=0.2)
    assert entered["lora"].wait(timeout=30)
    for thread in threads:
        thread.join()


def test_replacing_and_dropping_do_not_disturb_a_request(library, files):
    with library.use("lora") as network:
        before = logits(network)
        library.load("lora", files / "decoder.safetensors")
        library.drop("late")
        torch.testing.assert_close(logits(network), before, **CLOSE)
    with library.use("lora") as network, library.use("decoder") as same:
        torch.testing.assert_close(logits(network), logits(same), **CLOSE)
        assert not torch.allclose(logits(network), before, **CLOSE)
    assert "late" not in library.names
    with pytest.raises(ConfigError, match="unknown adapter"), library.use("late"):
        pass


def test_names_are_checked(library, files):
    with pytest.raises(ConfigError, match="did you mean topolora"), library.use("topolorra"):
        pass
    for call in (lambda: library.load("base", files / "lora.safetensors"), lambda: library.drop("base")):
        with pytest.raises(ConfigError, match="base"):
            call()


def test_adapters_of_other_bases_are_refused_and_nothing_is_lost(library, files, tmp_path):
    other = AdapterLibrary(build_network(NAME, seed=1))
    with pytest.raises(AdapterFileError, match="other base weights"):
        other.load("lora", files / "lora.safetensors")
    assert other.names == ("base",)
    save_adapter(adapt(build_network("little_wnet"), preset_config("full")), tmp_path / "unet.safetensors")
    with pytest.raises(AdapterFileError, match="another network"):
        library.load("lora", tmp_path / "unet.safetensors")
    with library.use("lora") as network:
        assert logits(network).isfinite().all()


def test_network_that_cannot_be_built_is_an_error_of_the_file(base, tmp_path):
    adaptation = adapt(build_network(NAME), preset_config("adapter_only"))
    save_adapter(adaptation, tmp_path / "odd.safetensors", image_size=65)
    with pytest.raises(AdapterFileError, match=r"cannot be built.*odd\.safetensors(.|\n)*multiple of 16"):
        AdapterLibrary(base).load("odd", tmp_path / "odd.safetensors")


def test_real_tiny_vit_shares_its_batch_norm(tmp_path):
    """TinyViT keeps normalisation statistics and cached attention biases; frozen ones are shared, none is written."""
    base = build_network("vit_t", image_size=64)
    adaptation = adapt(build_network("vit_t", image_size=64), preset_config("topolora"))
    for parameter in adaptation.trainable().values():
        parameter.data += 0.02
    save_adapter(adaptation, tmp_path / "a.safetensors", image_size=64)
    library = AdapterLibrary(base)
    library.load("a", tmp_path / "a.safetensors")
    before = fingerprint(base.state_dict())
    with library.use("a") as network:
        torch.testing.assert_close(logits(network.train(False)), logits(adaptation.network.eval()), **CLOSE)
        name = "image_encoder.patch_embed.seq.0.bn.running_mean"
        assert network.state_dict()[name].data_ptr() == base.state_dict()[name].data_ptr()
    assert fingerprint(base.state_dict()) == before
