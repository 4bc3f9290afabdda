"""The Containerfile's steps in a plain root, without a container engine: built, started, asked for a mask, ended.

    sudo python3 scripts/check_container.py ROOT --adapter runs/default/adapter.safetensors

ROOT is an empty folder, which debootstrap fills with a small Debian in the place of the base image, or one that an
earlier check has filled: then only the server is started. Needs a Linux machine, root, and Debian's debootstrap.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[1]
DEBIAN, PACKAGES = "bookworm", "python3,python3-venv,ca-certificates"
SECONDS = 180
IMAGE = """
import numpy as np
from PIL import Image
picture = np.random.default_rng(0).integers(120, 255, (50, 70, 3), dtype=np.uint8)
picture[20:24, 10:60] //= 3
Image.fromarray(picture).save("/studies/im0.png")
"""


class Step(NamedTuple):
    """An instruction of a Containerfile, and what follows it."""

    instruction: str
    rest: str


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder that becomes the root of the server's system")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="base checkpoint, if the adapter has one")
    parser.add_argument("--bind", nargs="*", type=Path, default=[], help="files and folders to be seen there as here")
    parser.add_argument("--build_arg", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--port", type=int, default=8000)
    return parser.parse_args()


def read_steps(path: Path) -> list[Step]:
    """Instructions in their order, without comments."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [Step(*line.split(None, 1)) for line in lines if line.strip()]


class Root:
    """A folder as the root of a system, in which steps are done.

    Args:
        folder: of the system.
        bind: what is seen in it as outside.
        given: values of build arguments.
    """

    def __init__(self, folder: Path, bind: list[Path], given: dict[str, str]) -> None:
        self.folder, self.given = folder, given
        self.variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.user, self.place = "root", "/"
        for path in bind:
            inside = self.inside(path)
            if path.is_dir():
                inside.mkdir(parents=True, exist_ok=True)
            else:
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.touch()
            subprocess.run(["mount", "--rbind", path, inside], check=True)

    def inside(self, path: str | Path) -> Path:
        """Where a path of the system is outside it."""
        return self.folder / str(path).lstrip("/")

    def command(self, words: list[str]) -> list[str]:
        """What runs a program in it, as its present user."""
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        enter = ["chroot", f"--userspec={self.user}", str(self.folder), "env", "-i", *variables]
        return [*enter, "sh", "-c", f"cd {shlex.quote(self.place)} && exec {shlex.join(words)}"]

    def run(self, words: list[str]) -> None:
        """A program, to its end."""
        subprocess.run(self.command(words), check=True)

    def do(self, step: Step) -> None:
        """One instruction; those about running are left to the caller.

        Raises:
            SystemExit: for one that is not known here.
        """
        kind, rest = step
        if kind == "ARG":
            name, _, default = rest.partition("=")
            self.variables[name] = self.given.get(name, default.strip('"'))
        elif kind == "ENV":
            self.variables.update(dict(pair.split("=", 1) for pair in shlex.split(rest)))
        elif kind == "WORKDIR":
            self.place = rest
            self.inside(rest).mkdir(parents=True, exist_ok=True)
        elif kind == "USER":
            self.user = rest
        elif kind == "COPY":
            self._copy(*shlex.split(rest))
        elif kind == "RUN":
            self.run(["sh", "-ec", rest])
        elif kind not in ("FROM", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            raise SystemExit(f"{kind} is not known to this check")

    def _copy(self, *names: str) -> None:
        target = self.inside(Path(self.place) / names[-1])
        for name in names[:-1]:
            if (SOURCE / name).is_dir():
                shutil.copytree(SOURCE / name, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(SOURCE / name, target)


def fill(folder: Path) -> None:
    """A small Debian, in the place of the base image."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, folder], check=True)


def served(root: Root, steps: dict[str, str], arguments: argparse.Namespace) -> str:
    """Start the server as the image would, and ask it for a mask."""
    names = [path.name for path in (arguments.adapter, arguments.weights) if path]
    for path, name in zip((arguments.adapter, arguments.weights), names, strict=False):
        shutil.copy(path, root.inside("/models") / name)
    root.run(["python", "-c", IMAGE])
    words = [*json.loads(steps["ENTRYPOINT"]), "--anyone", "--studies", "/studies", "--port", str(arguments.port)]
    words += ["--adapter", f"vessels=/models/{names[0]}", *(["--weights", f"/models/{names[1]}"] if names[1:] else [])]
    health = steps["HEALTHCHECK"].partition(" CMD ")[2].replace(":8000/", f":{arguments.port}/")
    server = subprocess.Popen(root.command(words))
    try:
        for _ in range(SECONDS):
            if server.poll() is not None:
                raise SystemExit(f"the server ended with status {server.returncode}")
            if (
                subprocess.run(root.command(["sh", "-c", health]), check=False, stderr=subprocess.DEVNULL).returncode
                == 0
            ):
                break
            time.sleep(1)
        else:
            raise SystemExit(f"not healthy after {SECONDS} s")
        address = f"http://127.0.0.1:{arguments.port}/infer/vessels?image=im0&output=image"
        with urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=SECONDS) as answer:
            return f"{answer.status}, {len(answer.read())} bytes"
    finally:
        server.terminate()
        server.wait(30)


def main() -> None:
    arguments = parse_arguments()
    if os.environ.get("TOPOLORA_OWN_MOUNTS") is None:  # so that no mount is left behind
        os.environ["TOPOLORA_OWN_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    folder = arguments.root.resolve()
    built = folder / "built"
    if not built.exists():
        fill(folder)
    known = [path for path in (Path("/proc"), Path("/dev"), Path("/etc/resolv.conf")) if path.exists()]
    root = Root(folder, [*known, *arguments.bind], dict(pair.split("=", 1) for pair in arguments.build_arg))
    steps = read_steps(SOURCE / "container/Containerfile")
    for step in steps:
        if not built.exists() or step.instruction in ("ENV", "USER", "WORKDIR"):
            print("::", *step, flush=True)
            root.do(step)
    built.touch()
    print("a mask:", served(root, dict(steps), arguments))


if __name__ == "__main__":
    main()
