"""Active learning: scores of images, and which one comes next."""

import math
import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy

from topolora_monai.annotation.uncertainty import UncertaintyKind, random_score, uncertainty_score
from topolora_monai.data import file_sha256
from topolora_monai.errors import ConfigError, TopoLoRAError
from topolora_monai.io.images import image_kind
from topolora_monai.label_app.models import Adapters

_HANDED_OUT = 300
"""Seconds for which an image that somebody was given is not given to others, while there are more."""


class Scoring(ScoringMethod):
    """Note on each image without final label how uncertain the network is of it.

    The request may name the ``adapter``, by default the first, and ``passes`` with dropout.
    """

    def __init__(self, adapters: Adapters, kind: UncertaintyKind) -> None:
        super().__init__(f"uncertainty by {kind}")
        self._adapters = adapters
        self._kind = kind

    def check(self, request: Mapping[str, Any]) -> tuple[str, int]:
        """Adapter and passes of a request.

        Raises:
            ConfigError: for an adapter that is not here, or passes that are no number above 0.
        """
        name, passes = str(request.get("adapter") or self._adapters.names[0]), request.get("passes") or 4
        self._adapters.versions(name)
        if not isinstance(passes, int) or passes < 1:
            raise ConfigError("passes must be a whole number above 0", found=repr(passes)[:60])
        return name, passes

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score all images without final label; an image that cannot be scored is noted and passed over.

        Returns:
            Scores by image, and ``errors`` by image.
        """
        name, passes = self.check(request)
        segmenter, version = self._adapters.segmenter(name), self._adapters.current(name).number
        scores, errors = {}, {}
        for image in datastore.get_unlabeled_images():
            try:
                path = datastore.get_image_uri(image)
                if image_kind(path) == "volume":
                    continue
                score = scores[image] = uncertainty_score(segmenter, path, self._kind, name, passes)
            except TopoLoRAError as error:
                errors[image] = str(error)
                continue
            noted = datastore.get_image_info(image).get("scores", {})
            entry = {"score": score, "adapter": name, "version": version, "ts": int(time.time())}
            datastore.update_image_info(image, {"scores": {**noted, self._kind: entry}})
        return {"method": self._kind, "scores": scores, "errors": errors}


class NextImage(Strategy):
    """The image without final label whose score is highest among those that nobody else is working on, or among all.

    Scores are those of :class:`Scoring`, images without one come last; or random ones, the same for everybody.
    """

    def __init__(self, kind: UncertaintyKind | None) -> None:
        super().__init__(f"most uncertain first, by {kind}; score the images first" if kind else "random order")
        self._kind = kind

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose.

        Returns:
            ``id``; ``score``, null for an image that was not scored; ``checksum`` of its file; None if every image has
            a final label.
        """
        infos = {image: datastore.get_image_info(image) for image in datastore.get_unlabeled_images()}
        if not infos:
            return None
        client, since = request.get("client_id"), time.time() - _HANDED_OUT
        free = {image: info for image, info in infos.items() if not _is_taken(info, client, since)} or infos
        scores = {image: self._score(image, info) for image, info in free.items()}
        ranks = {image: -math.inf if score is None else score for image, score in scores.items()}
        best = max(sorted(ranks), key=lambda image: ranks[image])
        # Without it 3D Slicer takes a file of this name that it has from before, perhaps of other studies.
        path = datastore.get_image_uri(best)
        return {"id": best, "score": scores[best]} | ({"checksum": f"SHA256:{file_sha256(path)}"} if path else {})

    def _score(self, image: str, info: dict[str, Any]) -> float | None:
        if self._kind is None:
            return random_score(image)
        score = info.get("scores", {}).get(self._kind, {}).get("score")
        return None if score is None else float(score)


def _is_taken(info: dict[str, Any], client: Any, since: float) -> bool:
    handed_out = info.get("strategy", {}).values()
    return any(entry.get("ts", 0) > since and entry.get("client_id") != client for entry in handed_out)
