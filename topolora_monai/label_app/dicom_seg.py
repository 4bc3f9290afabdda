"""Labels as DICOM Segmentation objects, which lie exactly where their images do, and back."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import VLPhotographicImageStorage, generate_uid

import topolora_monai
from topolora_monai.errors import DataError

logging.getLogger("highdicom").setLevel(logging.ERROR)  # else it tells of every module that it copies
_ORGANS = {
    "vessel": Code("59820001", "SCT", "Blood vessel"),
    "arter": Code("51114001", "SCT", "Artery"),
    "vein": Code("29092000", "SCT", "Vein"),
}
_ANYTHING = Code("91723000", "SCT", "Anatomical structure")
_NEEDED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
    "StudyID", "AccessionNumber",
)  # fmt: skip
"""What every image has to have, if only empty, and some lack."""
_LONGEST = 64
"""Characters of DICOM's LO and PN."""


def dicom_segmentation(
    numbers: NDArray[np.uint8],
    sources: Sequence[Dataset],
    names: Mapping[int, str],
    creator: str | None = None,
    algorithm: str | None = None,
    label_map: bool = False,
) -> Segmentation:
    """A new object of a new series in the study of the images, by highdicom.

    Position, orientation and spacing are those of the images, character by character. A photograph has none; there
    the reference to it tells where the label belongs. Frames without any pixel are left out; a label that is all
    background keeps those of one image, since an object without frames is none.

    Args:
        numbers: class numbers, (H, W) of one image or (slices, rows, columns); they become ``SegmentNumber``.
        sources: the image of each slice, in the order of the slices; pixels are not needed.
        names: of the classes by number; classes that are not named are called by their number.
        creator: who submits it.
        algorithm: name of the model that the annotator began with.
        label_map: class numbers as the pixels' values (Supplement 243), which not every viewer reads, in the place of
            one bit for each pixel and class.
    """
    planes = numbers.reshape(-1, *numbers.shape[-2:])
    last = max(1, int(numbers.max(initial=0)), *names)
    kept = [index for index, plane in enumerate(planes) if plane.any()] or [0]
    seg = Segmentation(
        source_images=[_complete(sources[index]) for index in kept],
        pixel_array=planes[kept],
        segmentation_type="LABELMAP" if label_map else "BINARY",
        segment_descriptions=[_segment(n, names.get(n, ""), algorithm) for n in range(1, last + 1)],
        series_instance_uid=generate_uid(),
        series_number=300,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="topolora_monai",
        manufacturer_model_name="topolora label",
        software_versions=topolora_monai.__version__,
        device_serial_number="none",
        content_label="TOPOLORA_LABEL",
        content_description="Submitted by an annotator",
        pixel_measures=_measures(sources),
        specific_character_set="ISO_IR 192",
        series_description="topolora_monai label",
    )
    seg.ContentCreatorName = _plain(creator or "")  # of one word, which highdicom takes for no name
    _restore(seg, sources)
    return seg


def numbers_of_segmentation(seg: Dataset, sources: Sequence[Dataset], names: Mapping[int, str]) -> NDArray[np.uint8]:
    """Class numbers, (slices, rows, columns) in the order of the images, of a DICOM SEG object by any program.

    A segment that is called as a class, in whatever case, has that class's number; others keep the segment's. Where
    segments overlap, the highest number is taken. Of a fractional object, what is at least half counts.

    Args:
        seg: bits, fractions or a label map.
        sources: the image of each slice; pixels are not needed.
        names: of the classes by number.

    Raises:
        DataError: if its frames do not tell which image they belong to, or are of another size.
    """
    uids = [str(source.SOPInstanceUID) for source in sources]
    known = set(uids) & set(referenced_instances(seg))
    if not known or (seg.Rows, seg.Columns) != (sources[0].Rows, sources[0].Columns):
        raise DataError(
            "the segmentation is not of this image",
            path=str(seg.SOPInstanceUID),
            expected=f"frames of {sources[0].Rows} x {sources[0].Columns} pixels with references to its instances",
            found=f"{seg.Rows} x {seg.Columns} pixels, {len(known)} references",
        )
    kind = str(seg.SegmentationType)
    frames = np.asarray(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns)
    segments = {int(part.SegmentNumber): str(part.get("SegmentLabel", "")) for part in seg.SegmentSequence}
    by_name = {name.lower(): number for number, name in names.items()}
    numbered = {number: by_name.get(name.lower(), number) for number, name in segments.items()}
    if max(numbered.values()) > 255:
        raise DataError("the segmentation has more classes than labels may have", found=max(numbered.values()))
    found = np.zeros((len(sources), seg.Rows, seg.Columns), np.uint8)
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        index = next((uids.index(uid) for uid in _images_of(groups) if uid in uids), None)
        if index is None:
            continue
        if kind == "LABELMAP":
            values = np.array([numbered.get(n, 0) for n in range(int(frame.max(initial=0)) + 1)], np.uint8)[frame]
        else:
            place = groups if "SegmentIdentificationSequence" in groups else seg.SharedFunctionalGroupsSequence[0]
            number = numbered[int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
            least = int(seg.MaximumFractionalValue) / 2 if kind == "FRACTIONAL" else 1
            values = np.where(frame >= least, number, 0).astype(np.uint8)
        np.maximum(found[index], values, out=found[index])
    return found


def referenced_instances(seg: Dataset) -> Iterator[str]:
    """UIDs of the images that the frames of a DICOM SEG object belong to."""
    for groups in seg.get("PerFrameFunctionalGroupsSequence") or ():
        yield from _images_of(groups)


def _images_of(groups: Dataset) -> Iterator[str]:
    for derivation in groups.get("DerivationImageSequence") or ():
        for image in derivation.get("SourceImageSequence") or ():
            yield str(image.ReferencedSOPInstanceUID)


def _complete(source: Dataset) -> Dataset:
    """A copy with what highdicom reads."""
    image = copy.deepcopy(source)
    for keyword in _NEEDED:
        if keyword not in image:
            setattr(image, keyword, None)
    if "ImagePositionPatient" not in image:
        # Where several frames are possible, as in eye photographs, highdicom reads what only newer classes have.
        image.SOPClassUID = VLPhotographicImageStorage
    return image


def _measures(sources: Sequence[Dataset]) -> PixelMeasuresSequence | None:
    """Size of pixels, and of slices where the images do not tell."""
    first = sources[0]
    if "PixelSpacing" not in first:
        return None
    between = None
    if len(sources) > 1:
        ends = (np.array(source.ImagePositionPatient, float) for source in (sources[0], sources[-1]))
        between = float(np.linalg.norm(np.subtract(*ends))) / (len(sources) - 1)
    return PixelMeasuresSequence(
        pixel_spacing=[float(part) for part in first.PixelSpacing],
        slice_thickness=float(first.get("SliceThickness") or between or 1),
        spacing_between_slices=between,
    )


def _restore(seg: Segmentation, sources: Sequence[Dataset]) -> None:
    """Numbers as the images have them, which highdicom writes anew, and the images' own class."""
    for element in seg.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = sources[0].SOPClassUID
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    for groups in seg.PerFrameFunctionalGroupsSequence:
        if "PlanePositionSequence" in groups:
            source = by_uid[next(_images_of(groups))]
            groups.PlanePositionSequence[0].ImagePositionPatient = source.ImagePositionPatient
    shared, first = seg.SharedFunctionalGroupsSequence[0], sources[0]
    if "PlaneOrientationSequence" in shared:
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = first.ImageOrientationPatient
    if "PixelMeasuresSequence" in shared:
        shared.PixelMeasuresSequence[0].PixelSpacing = first.PixelSpacing


def _segment(number: int, name: str, algorithm: str | None) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=_plain(name) or f"class {number}",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=next((code for word, code in _ORGANS.items() if word in name.lower()), _ANYTHING),
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            _plain(algorithm or "topolora_monai"),
            family=codes.DCM.ArtificialIntelligence,
            version=topolora_monai.__version__,
        ),
    )


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() and letter not in "\\^=")[:_LONGEST].strip()
