"""Write a bundle's files anew from those of the TopoLoRA bundle and a recipe, the few ids in which it differs.

    python scripts/sync_bundles.py

Each configuration stands alone, as MONAI and MONAI Label read it; this keeps what bundles share the same. To be run
after a change to ``bundles/topolora_sam_segmentation`` or to a file in ``scripts/recipes``, one for each bundle made
so. Pages under ``docs`` are written by hand.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "bundles" / "topolora_sam_segmentation"
RECIPES = ROOT / "scripts" / "recipes"


def replaced(text: str, id_: str, block: str) -> str:
    """A configuration's text with another block in the place of the one that defines an id, ``a#b`` for nested ones."""
    start, end, indent = 0, len(text), ""
    for depth, key in enumerate(id_.split("#")):
        indent = "  " * depth
        found = re.compile(rf"^{indent}{re.escape(key)}:.*\n(?:(?:{indent} .*)?\n)*", re.MULTILINE).search(
            text, start, end
        )
        if found is None:
            raise SystemExit(f"the recipe replaces {id_}, which {SOURCE.name} does not have")
        start, end = found.span()
    blank = len(text[start:end]) - len(text[start:end].rstrip("\n")) - 1  # lines that part blocks stay
    lines = "".join(f"{indent}{line}\n" for line in block.splitlines())
    return text[:start] + lines + "\n" * blank + text[end:]


def merged(path: str, recipe: Mapping[str, object]) -> str:
    """Text of one of the bundle's files."""
    text = (SOURCE / path).read_text()
    if path.endswith(".json"):
        unknown = recipe.keys() - json.loads(text).keys()
        if unknown:
            raise SystemExit(f"the recipe replaces {sorted(unknown)}, which {SOURCE.name} does not have")
        return json.dumps(json.loads(text) | recipe, indent=2) + "\n"
    for id_, block in recipe.items():
        text = replaced(text, id_, str(block))
    return text


def files(bundle: str) -> dict[str, str]:
    """All files of a bundle that are not written by hand, by their path inside it."""
    recipe = yaml.safe_load((RECIPES / f"{bundle}.yaml").read_text())
    return {path: merged(path, changes) for path, changes in recipe.items()}


def main() -> None:
    for recipe in sorted(RECIPES.glob("*.yaml")):
        for path, text in files(recipe.stem).items():
            file = ROOT / "bundles" / recipe.stem / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        print(f"bundles/{recipe.stem} written")


if __name__ == "__main__":
    main()
