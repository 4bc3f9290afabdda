"""Every version of every label, and files that are whole or not there, also after a power cut."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from topolora_monai.annotation.versions import sync
from topolora_monai.errors import ConfigError, DataError
from topolora_monai.io.atomic import atomic_write, remove_leftovers
from topolora_monai.io.download import file_sha256
from topolora_monai.io.json_files import json_text


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


class NewerLabelError(ConfigError):
    """Somebody submitted a label of the image since the one that a new label began from."""

    def __init__(self, newest: LabelVersion) -> None:
        who = newest.user or "somebody"
        super().__init__(f"{who} submitted version {newest.version} of this label at {newest.time} meanwhile")


class LabelHistory:
    """Versions of labels in a folder, ``TAG/IMAGE/000001.json`` beside ``000001.png``.

    A version exists once its record does, which is written after the label itself is on the disk. Processes and
    threads take turns.

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
        for labels in folder.glob("*/*"):
            remove_leftovers(labels)
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
        """Add a version, of a file to copy or None for a label that was removed; when this returns, it is on the disk.

        Image and tag are checked names; ``suffix`` is the ending of the copy's name, ``info`` whatever the client said.
        """
        with self.turn():
            folder = self._folder / tag / image
            taken = [int(path.name[:6]) for path in folder.glob("[0-9]*") if path.name[:6].isdigit()]
            number = max(taken, default=0) + 1
            file = None if label is None else f"{number:06d}{suffix}"
            if label is not None and file is not None:
                copy_durably(label, folder / file)
            time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            digest = None if file is None else file_sha256(folder / file)
            version = LabelVersion(image, tag, number, time, file, digest, user, client_id, info or {})
            write_json_durably(asdict(version), folder / f"{number:06d}.json")
            return version

    def versions(self, image: str, tag: str) -> list[LabelVersion]:
        """All versions, oldest first; a damaged record raises ``DataError``."""
        return [self._read(path) for path in sorted((self._folder / tag / image).glob("*.json"))]

    def latest(self, image: str, tag: str) -> LabelVersion | None:
        """The newest version, if there is one."""
        records = sorted((self._folder / tag / image).glob("*.json"))
        return self._read(records[-1]) if records else None

    def path(self, version: LabelVersion) -> Path:
        """File of a version; that of a removal raises ``DataError``."""
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
            return LabelVersion(**read_record(path))
        except TypeError as error:
            raise DataError("a record of a label is damaged", path=path, found=error) from error


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file beside its place, bring it to the disk and rename it; an error leaves an older one as it was."""
    _durably(target, lambda beside: shutil.copyfile(source, beside))


def write_json_durably(content: Any, target: Path) -> None:
    """Write JSON in the same way."""
    _durably(target, lambda beside: beside.write_text(json_text(content, indent=1, default=str) + "\n"))


def read_record(path: Path) -> Any:
    """JSON that was written so.

    Raises:
        DataError: if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError("a record cannot be read", path=path, found=error) from error


def _durably(target: Path, write: Callable[[Path], Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as beside:
        write(beside)
        sync(beside)
    sync(target.parent)  # the name, too, is on the disk
