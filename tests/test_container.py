"""The image's files fit the tree and the command line; the steps themselves are run by scripts/check_container.py."""

import argparse
import fnmatch
import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode

import orthanc_round_trip as trip
import pytest
import yaml
from check_container import Root, read_steps

from tests.conftest import ROOT
from topolora_monai.cli import label

CONTAINER = ROOT / "container"


@pytest.fixture(scope="module")
def steps():
    return read_steps(CONTAINER / "Containerfile")


def _compose():
    return yaml.safe_load((CONTAINER / "compose.yaml").read_text())["services"]


def _parsed(words):
    """What ``topolora label`` understands by arguments."""
    parser = argparse.ArgumentParser()
    label.add_commands(parser.add_subparsers())
    return parser.parse_args(["label", *words])


def test_what_is_copied_is_there_and_is_not_ignored(steps):
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    names = [name for step in steps if step.instruction == "COPY" for name in step.rest.split()[:-1]]
    assert "topolora_monai" in names
    for name in names:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in kept)


def test_constraints_that_are_installed_by_are_copied(steps):
    text = "\n".join(step.rest for step in steps)
    for name in set(re.findall(r"--constraint (\S+)", text)):
        assert re.search(rf"pyproject.toml.* {name} ", text)
        for other in re.findall(r"^-[cr] (\S+)", (ROOT / name).read_text(), flags=re.M):
            assert re.search(rf"pyproject.toml.* {other} ", text)


def test_the_server_is_started_as_its_command_line_has_it(steps):
    entry = json.loads(dict(steps)["ENTRYPOINT"])
    assert entry[:2] == ["topolora", "label"]
    service = _compose()["label"]
    options = _parsed([*entry[2:], *service["command"]])
    assert options.studies == "http://orthanc:8042/dicom-web"
    assert options.anyone
    assert all(port.startswith("127.0.0.1:") for each in _compose().values() for port in each["ports"])
    volumes = [volume.rpartition(":/")[2] for volume in service["volumes"]]
    assert str(options.workspace).lstrip("/") in volumes
    assert str(options.port) in service["ports"][0]
    assert f":{options.port}/health" in dict(steps)["HEALTHCHECK"]


def test_nobody_is_root_when_it_runs(steps):
    users = [number for number, step in enumerate(steps) if step.instruction == "USER"]
    assert users
    assert all(step.instruction != "RUN" for step in steps[users[-1] :])
    assert steps[users[-1]].rest != "root"


def test_steps_are_read_without_comments_and_over_lines(tmp_path):
    (tmp_path / "Containerfile").write_text("# base\nFROM small\n\nRUN one \\\n  two\nCMD []\n")
    assert read_steps(tmp_path / "Containerfile") == [("FROM", "small"), ("RUN", "one two"), ("CMD", "[]")]


def test_variables_users_and_folders_of_steps_hold_for_what_follows(tmp_path):
    root = Root(tmp_path, [], {"INDEX": "there"})
    for step in (("ARG", 'INDEX=""'), ("ENV", "PATH=/opt/bin:/bin"), ("USER", "somebody"), ("WORKDIR", "/opt/source")):
        root.do(step)
    assert (tmp_path / "opt/source").is_dir()
    words = root.command(["pip", "install", "a b"])
    assert words[:3] == ["chroot", "--userspec=somebody", str(tmp_path)]
    assert {"PATH=/opt/bin:/bin", "INDEX=there"} < set(words)
    assert words[-1] == "cd /opt/source && exec pip install 'a b'"
    with pytest.raises(SystemExit, match="STOPSIGNAL is not known"):
        root.do(("STOPSIGNAL", "9"))


@pytest.mark.skipif(trip.orthanc_program() is None, reason="needs Orthanc: apt install orthanc orthanc-dicomweb")
def test_the_dicom_server_asks_for_the_password_of_its_environment(tmp_path):
    port = trip.free_port()
    places = {"StorageDirectory": str(tmp_path), "IndexDirectory": str(tmp_path), "HttpPort": port}
    settings = json.loads((CONTAINER / "orthanc.json").read_text())
    plugin = str(trip.orthanc_configuration(tmp_path, port)["Plugins"][0])
    assert any(plugin.startswith(place) for place in settings["Plugins"])
    (tmp_path / "orthanc.json").write_text(json.dumps({**settings, **places, "Plugins": [plugin]}))
    server = subprocess.Popen(
        [trip.orthanc_program(), tmp_path / "orthanc.json"],
        env={"ORTHANC_PASSWORD": "a word"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def status(word):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/dicom-web/studies")
        request.add_header("Authorization", "Basic " + b64encode(f"topolora:{word}".encode()).decode())
        try:
            return urllib.request.urlopen(request, timeout=10).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return None

    try:
        while status("a word") is None:
            assert server.poll() is None
            time.sleep(0.2)
        assert (status("a word"), status("another"), status("${ORTHANC_PASSWORD}")) == (200, 401, 401)
    finally:
        server.kill()
        server.wait()
