"""A folder of images, a released bundle, a browser, and the server in the test's own process or in one of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.browsers import chromium

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def studies(tmp_path):
    """Four images of 50 x 70 pixels."""
    return draw_studies(tmp_path / "studies")


@pytest.fixture
def mask_file(tmp_path):
    """A label of the images' size."""
    mask = np.zeros((50, 70), np.uint8)
    mask[20:30, 10:40] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A released bundle whose network no longer answers as its base."""
    from tests.release.test_release import write_run
    from topolora_monai.release import release

    root = tmp_path_factory.mktemp("released")
    return release(write_run(root / "run"), root / "vessels_segmentation")


@pytest.fixture(scope="session")
def adapter(bundle):
    """The adapter file that the bundle was released from; its base has random weights."""
    return bundle.parent / "run/adapter.safetensors"


@pytest.fixture(scope="session")
def browser():
    pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")
    with chromium("run `make label`") as started:
        yield started


@pytest.fixture
def make_client(studies, bundle, adapter, tmp_path, monkeypatch):
    """Makes the application, without some of its rules if asked, and a client of it in this process."""
    from fastapi.testclient import TestClient
    from monailabel.config import settings
    from monailabel.interfaces.utils import app as instances

    import topolora_monai.label_app.main  # noqa: F401 - sets the defaults before MONAI Label is imported
    from topolora_monai.cli.label import _app_folder
    from topolora_monai.label_app.options import LabelOptions
    from topolora_monai.label_app.server import create_application

    def make(without=(), started=True, **options):
        kept = {"workspace": str(tmp_path / "work"), "allowed_hosts": []} | options
        kept = {"bundles": {"vessels": str(bundle)}, "adapters": {"tuned": str(adapter)}} | kept
        monkeypatch.setattr(settings, "MONAI_LABEL_APP_DIR", str(_app_folder(tmp_path / "work")))
        monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", str(studies))
        monkeypatch.setattr(settings, "MONAI_LABEL_APP_CONF", LabelOptions(**kept).to_conf())
        monkeypatch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "sessions"))
        instances.clear_cache()
        return TestClient(create_application(without), raise_server_exceptions=False)

    yield make
    instances.clear_cache()


@contextlib.contextmanager
def in_process(studies, work, **options):
    """The server in a thread of the tests' own process, which starts sooner; its address."""
    import uvicorn
    from monailabel.config import settings
    from monailabel.interfaces.utils import app as instances

    import topolora_monai.label_app.main  # noqa: F401
    from topolora_monai.cli.label import _app_folder
    from topolora_monai.label_app.options import LabelOptions
    from topolora_monai.label_app.server import create_application

    conf = LabelOptions(workspace=str(work), **options).to_conf()
    values = {
        "APP_DIR": str(_app_folder(work)),
        "STUDIES": str(studies),
        "APP_CONF": conf,
        "SESSION_PATH": str(work / "sessions"),
    }
    with pytest.MonkeyPatch.context() as patch, socket.socket() as listening:
        for name, value in values.items():
            patch.setattr(settings, f"MONAI_LABEL_{name}", value if name == "APP_CONF" else str(value))
        instances.clear_cache()
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # so that requests wait until the server has started
        server = uvicorn.Server(uvicorn.Config(create_application(), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)
        instances.clear_cache()


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture
def without(monkeypatch):
    """Takes one patch back for the test: puts MONAI Label's own in the place of its replacements."""
    import importlib.util
    import inspect

    import topolora_monai.label_app.main  # noqa: F401 - applies the patches
    from topolora_monai.label_app.patches import PATCHES

    def own(place, attribute):
        module = sys.modules[place.__module__] if inspect.isclass(place) else place
        specification = importlib.util.spec_from_file_location(f"unpatched_{module.__name__}", module.__file__)
        again = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(again)
        return getattr(getattr(again, place.__name__) if inspect.isclass(place) else again, attribute)

    def take_back(name):
        patch = next(patch for patch in PATCHES if patch.name == name)
        for place, attribute, replacement in patch.replacements():
            original = getattr(replacement, "original", None) or own(place, attribute)
            monkeypatch.setattr(place, attribute, original)

    return take_back


class Server:
    """``topolora label``, or another program, in a process of its own."""

    def __init__(self, command, log, environment=None):
        self.log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # Not that of the tests' process, in which the app may have been made.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MONAI_LABEL")}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=variables | {"OMP_NUM_THREADS": "1"} | (environment or {}),
                start_new_session=True,
            )

    def wait(self, path="/health"):
        """Until it answers."""
        import requests

        for _ in range(600):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.url + path, timeout=5).ok:
                    return self
            time.sleep(0.2)
        raise AssertionError(f"server is not up:\n{self.log.read_text()[-3000:]}")

    def kill(self, number=signal.SIGKILL):
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait(30)


@pytest.fixture
def start_server(tmp_path):
    """Starts ``topolora label`` with arguments; all that were started are ended after the test."""
    started = []

    def start(*arguments, environment=None, command=None, health="/health"):
        command = command or [sys.executable, "-m", "topolora_monai.cli", "label"]
        server = Server([*command, *map(str, arguments)], tmp_path / f"server{len(started)}.log", environment)
        started.append(server)
        return server.wait(health)

    yield start
    for server in started:
        server.kill()


def upload(path, field="label", **params):
    """Form of an upload."""
    return {"files": {field: (path.name, path.read_bytes(), "image/png")}, "data": {"params": json.dumps(params)}}


def draw_studies(folder):
    """Four noisy images of 50 x 70 pixels, with a dark line each."""
    folder.mkdir()
    for number in range(4):
        picture = np.random.default_rng(number).integers(120, 255, (50, 70, 3), dtype=np.uint8)
        picture[20 + number : 24 + number, 10:60] //= 3
        Image.fromarray(picture).save(folder / f"im{number}.png")
    return folder
