"""Write the adapter files of this version: ``python -m tests.artefacts.make``. Done once, before its release.

Later versions have to load them, and to answer as ``expected.json`` says.
"""

import json
from pathlib import Path

import topolora_monai
from tests.artefacts.networks import SIDE, build, fill, logits, statistics
from topolora_monai.adapters import (
    AdaptationConfig,
    adapt,
    adapter_state,
    preset_config,
    save_adapter,
)

FOLDER = Path(__file__).parent / topolora_monai.__version__

LAST_BLOCKS = {"lora": {"targets": ("mlp", "qkv"), "r": 2, "first_block": 2}}
MIXED = {"conv_lora": {"r": 2, "scales": (1, 2, 3), "top_k": 2, "first_block": 1}}
PUBLISHED = {"conv_lora": {"gate": "published", "scales": (1, 2)}}
CASES = {
    "lora": ("vit_tiny_test", AdaptationConfig.from_dict(LAST_BLOCKS)),
    "conv_lora": ("vit_tiny_test", AdaptationConfig.from_dict(MIXED)),
    "conv_lora_published": ("small", AdaptationConfig.from_dict(PUBLISHED)),
    "adapter_only": ("small", preset_config("adapter_only")),
    "topolora_batch_norm": ("small", preset_config("topolora", conv_adapter_norm="batch", lora={"rank": 4})),
}


def main():
    FOLDER.mkdir()  # files of a version are never written again
    expected = {}
    for name, (base, config) in CASES.items():
        adaptation = adapt(build(base), config)
        state = adapter_state(adaptation.network)
        fill(state, name)
        save_adapter(
            adaptation,
            FOLDER / f"{name}.safetensors",
            dataset="none",
            labels=["background", "vessel"],
            image_size=SIDE,
            crop_size=SIDE // 2,
            in_channels=3,
            out_channels=1,
            fit="pad",
            threshold=0.4,
        )
        expected[name] = {"base": base, "logits": statistics(logits(adaptation.network))}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
