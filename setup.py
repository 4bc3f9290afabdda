"""What ``pyproject.toml`` cannot say: the bundles lie at the top of the tree and are installed inside the package."""

from setuptools import find_namespace_packages, setup

BUNDLES = "topolora_monai.bundles"

setup(packages=[*find_namespace_packages(include=["topolora_monai*"]), BUNDLES], package_dir={BUNDLES: "bundles"})
