"""Answer times and memory of the annotation server, as clients meet them.

    .venv-label/bin/python scripts/bench/label_server.py IMAGES --adapter runs/drive/adapter.safetensors \
        --weights mobile_sam.pt --json results/label_server_vit_t.json

Starts ``topolora label`` on a copy of some images. A first mask is asked for each image, then clicks on one, then
clicks from several clients at once, then many requests to see whether memory grows. Needs the environment of
``make label``.
"""

import argparse
import io
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WARM_UP = 100


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of pictures")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--weights", help="base checkpoint that the adapter was trained on")
    parser.add_argument("--count", type=int, default=3, help="images")
    parser.add_argument("--clicks", type=int, default=50)
    parser.add_argument("--clients", type=int, default=3, help="at once")
    parser.add_argument("--requests", type=int, default=1000, help="for the memory, after a warm-up of 100")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


class Server:
    """``topolora label`` on a folder, and what clients ask of it."""

    def __init__(self, studies: Path, adapter: Path, weights: str | None) -> None:
        import psutil
        import requests

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.requests = requests
        words = [sys.executable, "-m", "topolora_monai.cli", "label", "--studies", str(studies), "--port", str(port)]
        words += ["--adapter", f"vessels={adapter.absolute()}", *(("--weights", weights) if weights else ())]
        self.log = (studies.parent / "server.log").open("w")
        self.process = subprocess.Popen(words, stdout=self.log, stderr=subprocess.STDOUT)
        self.memory = psutil.Process(self.process.pid).memory_info
        self._wait()

    def _wait(self) -> None:
        for _ in range(1500):
            if self.process.poll() is not None:
                break
            try:
                if self.requests.get(f"{self.url}/health", timeout=5).ok:
                    return
            except self.requests.RequestException:
                time.sleep(0.2)
        raise SystemExit(f"the server did not start:\n{Path(self.log.name).read_text()[-3000:]}")

    def ask(self, model: str, image: str, **params: object) -> float:
        """Seconds until a mask is there."""
        start = time.perf_counter()
        answer = self.requests.post(
            f"{self.url}/infer/{model}",
            params={"image": image, "output": "image"},
            data={"params": json.dumps(params)},
            timeout=600,
        )
        answer.raise_for_status()
        return time.perf_counter() - start

    def size(self, image: str) -> tuple[int, int]:
        """Width and height."""
        from PIL import Image

        answer = self.requests.get(f"{self.url}/topolora/api/picture", params={"image": image}, timeout=60)
        return Image.open(io.BytesIO(answer.content)).size

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def click(server: Server, image: str, size: tuple[int, int], chance: random.Random) -> float:
    place = [chance.randrange(size[0]), chance.randrange(size[1])]
    kind = chance.choice(("foreground", "background"))
    return server.ask("vessels_clicks", image, **{kind: [place]})


def measure(server: Server, names: list[str], arguments: argparse.Namespace) -> dict[str, object]:
    from tqdm import trange

    first = [server.ask("vessels", name) for name in names]
    chance, name = random.Random(0), names[0]
    size = server.size(name)
    clicks = [click(server, name, size, chance) for _ in range(arguments.clicks)]

    def client(number: int) -> None:
        own = random.Random(number)
        for _ in range(arguments.clicks):
            click(server, names[number % len(names)], size, own)

    start = time.perf_counter()
    with ThreadPoolExecutor(arguments.clients) as pool:
        list(pool.map(client, range(arguments.clients)))
    together = time.perf_counter() - start

    memory = []
    for number in trange(WARM_UP + arguments.requests, desc="requests"):
        click(server, names[number % len(names)], size, chance)
        memory.append(server.memory().rss)
    return {
        "first_mask_seconds": first,
        "click_seconds": {
            "median": statistics.median(clicks),
            "worst": max(clicks),
            "count": len(clicks),
        },
        "clients": {
            "count": arguments.clients,
            "seconds_together": together,
            "seconds_in_turn": arguments.clients * sum(clicks),
        },
        "memory_bytes": {
            "after_warm_up": memory[WARM_UP - 1],
            "at_the_end": memory[-1],
            "requests": arguments.requests,
        },
    }


def main() -> None:
    arguments = parse_arguments()
    from topolora_monai.engines import provenance, write_json

    pictures = sorted(path for path in arguments.images.iterdir() if path.is_file())[: arguments.count]
    if not pictures:
        raise SystemExit(f"no images in {arguments.images}")
    with tempfile.TemporaryDirectory() as place:
        studies = Path(place) / "studies"
        studies.mkdir()
        for path in pictures:
            shutil.copy(path, studies)
        server = Server(studies, arguments.adapter, arguments.weights)
        try:
            figures = measure(server, [path.stem for path in pictures], arguments)
        finally:
            server.stop()
    print(json.dumps(figures, indent=2))
    if arguments.json:
        described = {name: provenance()[name] for name in ("command", "commit", "hardware")}
        write_json(figures | described, arguments.json)


if __name__ == "__main__":
    main()
