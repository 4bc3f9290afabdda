"""Prove that a released bundle stands alone: a new environment, MONAI's three verifications, one request.

    python scripts/check_release.py BUNDLE IMAGES

Installs this package without its extras (2 to 5 minutes), copies the bundle away from where it was made, and works
there without network: proxies lead nowhere, caches are empty.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="what topolora release wrote")
    parser.add_argument("images", type=Path, help="a folder of images to segment")
    return parser.parse_args()


def step(title: str, *words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    print(f"{title} ...", flush=True)
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{title} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def check(arguments: argparse.Namespace, place: Path) -> None:
    bundle = Path(shutil.copytree(arguments.bundle, place / "bundle"))
    images = Path(shutil.copytree(arguments.images, place / "images"))
    schema = shutil.copy(ROOT / "tests/bundles/metadata_schema.json", place / "schema.json")
    step("new environment", sys.executable, "-m", "venv", place / "venv")
    python = place / "venv/bin/python"
    install = (python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    step("installation", *install, ROOT, "jsonschema", cwd=place)  # the last is what verify_metadata needs
    env = OFFLINE | {"PATH": os.environ["PATH"], "HOME": str(place), "XDG_CACHE_HOME": str(place / "cache")}
    meta, config = "configs/metadata.json", "configs/inference.yaml"
    monai = (python, "-m", "monai.bundle")
    shared = ("--meta_file", meta, "--config_file", config)
    step("verify_metadata", *monai, "verify_metadata", "--meta_file", meta, "--filepath", schema, cwd=bundle, env=env)
    step(
        "verify_net_in_out", *monai, "verify_net_in_out", "network_def", *shared, "--device", "cpu", cwd=bundle, env=env
    )
    step("ckpt_export", *monai, "ckpt_export", "network_def", "--filepath", place / "model.ts", "--ckpt_file",
         "models/model.pt", *shared, cwd=bundle, env=env)  # fmt: skip
    step("request", *monai, "run", "inferring", "--config_file", config, "--input", images, "--output_dir",
         place / "masks", cwd=bundle, env=env)  # fmt: skip
    sources, masks = list(images.iterdir()), sorted((place / "masks").glob("*_mask.png"))
    if len(masks) != len(sources):
        raise SystemExit(f"{len(sources)} images, but {len(masks)} masks")
    print(f"passed: {len(masks)} masks")


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as place:
        check(arguments, Path(place))


if __name__ == "__main__":
    main()
