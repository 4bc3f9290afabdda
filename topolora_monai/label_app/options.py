"""What the server was started with, as it reaches every process of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from topolora_monai.errors import ConfigError


@dataclass(frozen=True)
class LabelOptions:
    """Options of ``topolora label`` that MONAI Label has none for.

    MONAI Label hands its ``--conf`` to the app, to the server's application and to every process they start; there
    they are one JSON text under :attr:`KEY`.

    Args:
        workspace: folder of adapter versions, training and logs.
        adapters: adapter files by name.
        bundles: folders of released bundles by name.
        weights: base checkpoint, path or name; None for a base of random weights.
        overlap: of the tiles that adapters look at; less of it answers sooner.
        label_map: whether DICOM SEG objects are label maps.
        field_of_view: whether adapters look inside the lit disc of fundus photographs alone.
        max_upload_mb: most that one request may carry, in 10^6 bytes.
        max_megapixels: most pixels of an image, in 10^6.
        allowed_hosts: names that the server answers to.
        cors_origins: other sites whose pages may use the server.

    Example:
        >>> options = LabelOptions(workspace="work", max_upload_mb=10)
        >>> LabelOptions.from_conf(options.to_conf()) == options
        True
    """

    workspace: str
    adapters: dict[str, str] = field(default_factory=dict)
    bundles: dict[str, str] = field(default_factory=dict)
    weights: str | None = None
    overlap: float = 0.25
    field_of_view: bool = False
    label_map: bool = False
    max_upload_mb: float = 500.0
    max_megapixels: float = 300.0
    allowed_hosts: list[str] = field(default_factory=lambda: ["localhost", "127.0.0.1", "[::1]"])
    cors_origins: list[str] = field(default_factory=list)

    KEY: ClassVar[str] = "topolora"

    @property
    def max_upload_bytes(self) -> int:
        """Most bytes of a request."""
        return int(self.max_upload_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image."""
        return int(self.max_megapixels * 1e6)

    @property
    def folder(self) -> Path:
        """The workspace."""
        return Path(self.workspace)

    def to_conf(self) -> dict[str, str]:
        """As MONAI Label's ``--conf`` takes it."""
        return {self.KEY: json.dumps(asdict(self))}

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any]) -> LabelOptions:
        """From what MONAI Label hands on.

        Raises:
            ConfigError: if it is not of ``topolora label``.
        """
        try:
            return cls(**json.loads(conf[cls.KEY]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "the label app was not started by its own command", hint="use `topolora label --studies DIR`"
            ) from error
