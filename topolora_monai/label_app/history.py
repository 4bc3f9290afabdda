"""Every version of every label: what was submitted, by whom and when; nothing is overwritten."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from topolora_monai.errors import DataError
from topolora_monai.label_app.files import copy_durably, read_json, write_json_durably

__all__ = ["LabelHistory", "LabelVersion"]


@dataclass(frozen=True)
class LabelVersion:
    """One version: ``version`` counts from 1; ``time`` is ISO 8601 in UTC; ``file`` is None for a removal."""

    image: str
    tag: str
    version: int
    time: str
    file: str | None
    sha256: str | None
    user: str | None = None
    client_id: str | None = None
    info: dict[str, Any] = field(default_factory=dict)


class LabelHistory:
    """Versions of labels in a folder, ``TAG/IMAGE/000001.json`` beside ``000001.png``.

    A version exists once its record does, which is written after the label itself is on the disk. Processes and
    threads take turns.

    Args:
        folder: made where it is missing.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "mask.png").write_bytes(b"a mask")
        >>> history = LabelHistory(root / "history")
        >>> history.add("21", "final", root / "mask.png", ".png", user="ann").version
        1
        >>> [version.user for version in history.versions("21", "final")]
        ['ann']
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file_lock = FileLock(folder / ".lock")
        self._lock = threading.RLock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep others from adding versions meanwhile."""
        with self._lock, self._file_lock:
            yield

    def add(
        self,
        image: str,
        tag: str,
        label: Path | None,
        suffix: str = "",
        user: str | None = None,
        client_id: str | None = None,
        info: dict[str, Any] | None = None,
    ) -> LabelVersion:
        """Add a version; when this returns, it is on the disk.

        Args:
            image: checked name of the image.
            tag: checked name of the tag.
            label: file to copy; None to record that the label was removed.
            suffix: ending of the copy's name.
            user: who submitted it.
            client_id: with which program.
            info: whatever the client said of it.
        """
        with self.turn():
            folder = self._folder / tag / image
            taken = [int(path.name[:6]) for path in folder.glob("[0-9]*") if path.name[:6].isdigit()]
            number = max(taken, default=0) + 1
            digest = None
            if label is not None:
                copy_durably(label, folder / f"{number:06d}{suffix}")
                digest = hashlib.sha256((folder / f"{number:06d}{suffix}").read_bytes()).hexdigest()
            version = LabelVersion(
                image=image,
                tag=tag,
                version=number,
                time=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                file=None if label is None else f"{number:06d}{suffix}",
                sha256=digest,
                user=user,
                client_id=client_id,
                info=info or {},
            )
            write_json_durably(asdict(version), folder / f"{number:06d}.json")
            return version

    def versions(self, image: str, tag: str) -> list[LabelVersion]:
        """All versions, oldest first.

        Raises:
            DataError: if a record is damaged.
        """
        return [self._read(path) for path in sorted((self._folder / tag / image).glob("*.json"))]

    def latest(self, image: str, tag: str) -> LabelVersion | None:
        """The newest version, if there is one."""
        records = sorted((self._folder / tag / image).glob("*.json"))
        return self._read(records[-1]) if records else None

    def path(self, version: LabelVersion) -> Path:
        """File of a version.

        Raises:
            DataError: if the version is a removal.
        """
        if version.file is None:
            raise DataError("this version records that the label was removed", path=version.image)
        return self._folder / version.tag / version.image / version.file

    def labels(self) -> Iterator[tuple[str, str]]:
        """(image, tag) of everything there are versions of."""
        for tag in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            for image in sorted(path for path in tag.iterdir() if path.is_dir()):
                yield image.name, tag.name

    @staticmethod
    def _read(path: Path) -> LabelVersion:
        try:
            return LabelVersion(**read_json(path))
        except TypeError as error:
            raise DataError("a record of a label is damaged", path=path, found=error) from error
