"""Labels as DICOM Segmentation objects, which lie exactly where their images do."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom_seg.dicom_utils import CodeSequence, DimensionOrganizationSequence
from pydicom_seg.segmentation_dataset import SegmentationDataset, SegmentationType

import topolora_monai

_ORGANS = {"vessel": ("59820001", "Blood vessel"), "arter": ("51114001", "Artery"), "vein": ("29092000", "Vein")}
_ANYTHING = ("91723000", "Anatomical structure")
_STUDY_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip
_LONGEST = 64
"""Characters of DICOM's LO and PN."""


def dicom_segmentation(
    numbers: NDArray[np.uint8],
    sources: Sequence[Dataset],
    names: Mapping[int, str],
    creator: str | None = None,
    algorithm: str | None = None,
) -> Dataset:
    """A new object of a new series in the study of the images, with one bit for each pixel and class.

    Position, orientation and spacing are those of the images, character by character. A photograph has none; there
    the reference to it tells where the label belongs. Frames without any pixel are left out; a label that is all
    background keeps one, since an object without frames is none.

    Args:
        numbers: class numbers, (H, W) of one image or (slices, rows, columns); they become ``SegmentNumber``.
        sources: the image of each slice, in the order of the slices; pixels are not needed.
        names: of the classes by number; classes that are not named are called by their number.
        creator: who submits it.
        algorithm: name of the model that the annotator began with.
    """
    planes = numbers.reshape(-1, *numbers.shape[-2:])
    first = sources[0]
    seg = SegmentationDataset(
        rows=planes.shape[1],
        columns=planes.shape[2],
        segmentation_type=SegmentationType.BINARY,
        reference_dicom=copy.deepcopy(first),  # it writes into the elements that it takes over
    )
    _describe(seg, first, creator)
    last = max(int(numbers.max(initial=1)), *names) if names else int(numbers.max(initial=1))
    numbered = range(1, max(last, 1) + 1)
    seg.SegmentSequence = Items(_segment(n, names.get(n, f"class {n}"), algorithm) for n in numbered)
    located = "ImagePositionPatient" in first
    dimensions = DimensionOrganizationSequence()
    dimensions.add_dimension("ReferencedSegmentNumber", "SegmentIdentificationSequence")
    if located:
        dimensions.add_dimension("ImagePositionPatient", "PlanePositionSequence")
    seg.add_dimension_organization(dimensions)
    seg.SharedFunctionalGroupsSequence = Items([_shared(sources)])
    frames = [(n, k) for n in range(1, last + 1) for k in range(len(planes)) if (planes[k] == n).any()] or [(1, 0)]
    for number, index in frames:
        source = sources[index]
        frame = seg.add_frame((planes[index] == number).astype(np.uint8), number, [source], update_pixel_data=False)
        frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved = "YES"
        content = _dataset(DimensionIndexValues=[number, index + 1] if located else [number])
        frame.FrameContentSequence = Items([content])
        if located:
            frame.PlanePositionSequence = Items([_dataset(ImagePositionPatient=source.ImagePositionPatient)])
    seg.update_pixel_data()
    seg.is_little_endian, seg.is_implicit_VR = True, False
    return seg


def _describe(seg: Dataset, source: Dataset, creator: str | None) -> None:
    for keyword in _STUDY_TYPE_2:
        if keyword not in seg:
            setattr(seg, keyword, None)
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        if keyword in seg:
            delattr(seg, keyword)
    if "FrameOfReferenceUID" in source:
        seg.FrameOfReferenceUID = source.FrameOfReferenceUID
        seg.PositionReferenceIndicator = source.get("PositionReferenceIndicator")
    if "ImagePositionPatient" not in source:
        seg.PatientOrientation = source.get("PatientOrientation")
    if source.get("LossyImageCompression") == "01":
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in source:
                seg[keyword] = source[keyword]
    seg.SpecificCharacterSet = "ISO_IR 192"
    seg.SeriesNumber = 300
    seg.SeriesDescription = "topolora_monai label"
    seg.ContentDescription = "Submitted by an annotator"
    seg.ContentCreatorName = _plain(creator or "")
    seg.Manufacturer = "topolora_monai"
    seg.ManufacturerModelName = "topolora label"
    seg.SoftwareVersions = topolora_monai.__version__
    seg.SegmentsOverlap = "NO"


def _dataset(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _segment(number: int, name: str, algorithm: str | None) -> Dataset:
    code, meaning = next((known for word, known in _ORGANS.items() if word in name.lower()), _ANYTHING)
    return _dataset(
        SegmentNumber=number,
        SegmentLabel=_plain(name) or f"class {number}",
        SegmentAlgorithmType="SEMIAUTOMATIC",
        SegmentAlgorithmName=_plain(algorithm or "topolora_monai"),
        SegmentedPropertyCategoryCodeSequence=CodeSequence("123037004", "SCT", "Anatomical Structure"),
        SegmentedPropertyTypeCodeSequence=CodeSequence(code, "SCT", meaning),
    )


def _shared(sources: Sequence[Dataset]) -> Dataset:
    first, distance = sources[0], _distance(sources)
    groups = Dataset()
    if "PixelSpacing" in first:
        between = {"SpacingBetweenSlices": distance} if len(sources) > 1 else {}
        thickness = first.get("SliceThickness") or distance
        measures = _dataset(PixelSpacing=first.PixelSpacing, SliceThickness=thickness, **between)
        groups.PixelMeasuresSequence = Items([measures])
    if "ImageOrientationPatient" in first:
        groups.PlaneOrientationSequence = Items([_dataset(ImageOrientationPatient=first.ImageOrientationPatient)])
    return groups


def _distance(sources: Sequence[Dataset]) -> Any:
    """Millimetres from one slice to the next, as DICOM's decimal string has them."""
    if len(sources) < 2:
        return 1
    ends = (np.array(source.ImagePositionPatient, float) for source in (sources[0], sources[-1]))
    return f"{np.linalg.norm(np.subtract(*ends)) / (len(sources) - 1):.8g}"


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and letter not in "\\^=")[:_LONGEST].strip()
