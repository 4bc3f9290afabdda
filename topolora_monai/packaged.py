"""What is installed with the package and read from disk: the bundle with its configurations."""

from pathlib import Path

from topolora_monai.errors import ConfigError, unknown_choice

_PACKAGE = Path(__file__).parent

RECIPES: dict[str, tuple[str, ...]] = {
    "quick": ("quick.yaml",),
    "conv_lora": ("conv_lora.yaml",),
    "published": ("published.yaml",),
    "published_conv_lora": ("conv_lora.yaml", "published_conv_lora.yaml"),
}
"""Configurations of the packaged bundle that follow its ``train.yaml``, by the recipe's name."""


def bundle_folder(name: str = "topolora_sam_segmentation") -> Path:
    """Folder of one of the package's bundles: inside an installed package, beside the package in the source tree.

    Raises:
        ConfigError: if it is in neither.

    Example:
        >>> (bundle_folder() / "configs" / "train.yaml").is_file()
        True
    """
    found = next((f for f in (_PACKAGE / "bundles" / name, _PACKAGE.parent / "bundles" / name) if f.is_dir()), None)
    if found is None:
        raise ConfigError("bundle not found", path=_PACKAGE / "bundles" / name, hint="install the package again")
    return found


def recipe_files(*recipes: str) -> list[str]:
    """Configurations that train by a recipe, or by several on top of one another, in the order MONAI takes them.

    Args:
        *recipes: keys of :data:`RECIPES`; none of them for the package's own.

    Raises:
        ConfigError: for an unknown one; suggests the closest.

    Example:
        >>> [Path(file).name for file in recipe_files("published_conv_lora")]
        ['train.yaml', 'conv_lora.yaml', 'published_conv_lora.yaml']
    """
    names = ["train.yaml"]
    for recipe in recipes:
        if recipe not in RECIPES:
            raise unknown_choice("recipe", recipe, RECIPES)
        names += [name for name in RECIPES[recipe] if name not in names]
    return [str(bundle_folder() / "configs" / name) for name in names]
