"""What the server segments with: adapters on one base in memory, each with its versions, and released bundles."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topolora_monai.annotation.prompts import Point, Prompts
from topolora_monai.annotation.segmenter import AnnotationSegmenter
from topolora_monai.annotation.versions import AdapterVersion, AdapterVersions
from topolora_monai.data import file_sha256
from topolora_monai.data.items import Item, expand_slices
from topolora_monai.errors import ConfigError, unknown_choice
from topolora_monai.io.atomic import remove_leftovers
from topolora_monai.label_app.options import LabelOptions
from topolora_monai.model.network import bundle_spec
from topolora_monai.model.predictor import Predictor
from topolora_monai.spec import ModelSpec


class Adapters:
    """The adapters that the server was started with, each in its current version.

    Their histories are in ``adapters/NAME`` of the workspace; a file the history does not know is its next version.
    The base is read on first use. A version that training or a roll-back made current, in whichever process, is
    loaded by the next request.
    """

    def __init__(self, options: LabelOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._loaded: dict[str, int] = {}
        self._segmenter: AnnotationSegmenter | None = None
        self._versions: dict[str, AdapterVersions] = {}
        for name, path in options.adapters.items():
            versions = AdapterVersions(options.folder / "adapters" / name)
            remove_leftovers(versions.folder)
            digest = file_sha256(path)
            if all(file_sha256(version.path) != digest for version in versions.history()):
                versions.add(path, "topolora label", f"from {Path(path).name}")
            self._versions[name] = versions

    @property
    def names(self) -> list[str]:
        """Names of the adapters."""
        return list(self._versions)

    def versions(self, name: str) -> AdapterVersions:
        """History of an adapter.

        Raises:
            ConfigError: for an unknown name.
        """
        if name not in self._versions:
            raise unknown_choice("adapter", name, self._versions)
        return self._versions[name]

    def current(self, name: str) -> AdapterVersion:
        """The version of an adapter that is in use."""
        version = self.versions(name).current()
        assert version is not None  # there is one since the start
        return version

    def segmenter(self, name: str) -> AnnotationSegmenter:
        """The network, with the adapter's current version loaded."""
        version = self.current(name)
        with self._lock:
            if self._segmenter is None:
                current = {other: self.current(other) for other in self._versions}
                self._segmenter = AnnotationSegmenter(
                    {other: found.path for other, found in current.items()},
                    weights=self._options.weights,
                    overlap=self._options.overlap,
                    field_of_view=self._options.field_of_view,
                )
                self._loaded = {other: found.number for other, found in current.items()}
            elif self._loaded[name] != version.number:
                self._segmenter.load(name, version.path)
                self._loaded[name] = version.number
            return self._segmenter


class Model:
    """An adapter as the tasks use it: always in its current version."""

    def __init__(self, adapters: Adapters, name: str) -> None:
        self._adapters = adapters
        self.name = name

    @property
    def spec(self) -> ModelSpec:
        """What the adapter's file says."""
        return self._adapters.segmenter(self.name).spec(self.name)

    def told(self) -> dict[str, Any]:
        """What a client is told with each result."""
        return {"adapter": self.name, "version": self._adapters.current(self.name).number}

    def automatic(self, item: Mapping[str, Any]) -> NDArray[np.float32]:
        """Probabilities of an image or one slice, (K, H, W)."""
        return self._adapters.segmenter(self.name).automatic(item, self.name).numpy()

    def interactive(
        self, item: Mapping[str, Any], prompts: Prompts, previous: NDArray[np.uint8] | None
    ) -> NDArray[np.float32]:
        """Probabilities that agree with clicks, (K, H, W)."""
        return self._adapters.segmenter(self.name).interactive(item, prompts, previous, self.name).numpy()

    def trace(self, image: str, slice: int, points: Sequence[Point], label: int) -> tuple[NDArray[np.intp], float]:
        """Live-wire through points in an image or a slice of a volume, see ``AnnotationSegmenter``."""
        items = expand_slices(Item(name="image", image=image), None)
        if not 0 <= slice < len(items):
            raise ConfigError("no such slice", expected=f"0 to {len(items) - 1}", found=slice)
        return self._adapters.segmenter(self.name).trace(items[slice], points, self.name, label)


class BundleModel:
    """A released bundle as the tasks use it; its network is read on first use.

    Raises:
        ConfigError: if the folder holds none.
    """

    def __init__(self, name: str, folder: str | Path) -> None:
        self.name = name
        self.spec = bundle_spec(folder)
        self._folder = folder
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._latest: tuple[Any, NDArray[np.float32]] | None = None

    def told(self) -> dict[str, Any]:
        """What a client is told with each result."""
        return {"bundle": self.name}

    def automatic(self, item: Mapping[str, Any]) -> NDArray[np.float32]:
        """Probabilities of an image or one slice, (K, H, W); the latest ones are kept, as they are asked for again."""
        asked = item["image"], item.get("slice"), Path(item["image"]).stat().st_mtime_ns
        with self._lock:  # layers may keep results for one another
            if self._predictor is None:
                self._predictor = Predictor.from_bundle(self._folder)
            if self._latest is None or self._latest[0] != asked:
                self._latest = asked, self._predictor.predict_item(item).probabilities
            return self._latest[1]
