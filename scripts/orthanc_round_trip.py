"""Whether a DICOM server and the annotation server work together: study in, DICOM SEG out, geometry and pixels equal.

    .venv-label/bin/python scripts/orthanc_round_trip.py --adapter runs/mine/adapter.safetensors --weights mobile_sam.pt
    .venv-label/bin/python scripts/orthanc_round_trip.py --dicomweb http://pacs:8042/dicom-web \
        --label_server http://127.0.0.1:8000 --series FOLDER

Without --dicomweb an Orthanc is started in a temporary folder (Debian: apt install orthanc orthanc-dicomweb), without
--label_server an annotation server; without --series a series is generated. The series is uploaded, segmented
and submitted; the SEG object is then taken from the DICOM server and compared with the series and the mask. On a
server that is in use, the series and the SEG object stay there. User and password of a DICOM server are read from
MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD. Exit status 1 says that something differs.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PLUGIN = "libOrthancDicomWeb.so"
SECONDS = 300


class Check(NamedTuple):
    """One comparison."""

    what: str
    expected: object
    found: object
    equal: bool


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicomweb", help="address of a running DICOM server's DICOMweb interface")
    parser.add_argument("--label_server", help="address of a running annotation server that has it as --studies")
    parser.add_argument("--series", type=Path, help="folder with the DICOM files of one series")
    parser.add_argument("--adapter", type=Path, help="for the annotation server that is started")
    parser.add_argument("--weights", help="base checkpoint of the adapter")
    parser.add_argument("--model", help="to segment with; by default the first one")
    arguments = parser.parse_args()
    if arguments.label_server and not arguments.dicomweb:
        parser.error("--label_server needs --dicomweb, the server that it was started with")
    if not (arguments.label_server or arguments.adapter):
        parser.error("name a running server by --label_server, or an --adapter to start one with")
    return arguments


def orthanc_program():
    """Path of Orthanc, None where it or its DICOMweb is not installed."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    program = shutil.which("Orthanc", path=path)
    return program if program and _plugin() else None


def _plugin():
    places = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
    return next((file for place in places if (file := Path(place) / PLUGIN).is_file()), None)


def orthanc_configuration(folder, port):
    """Of an Orthanc for this machine alone, as docs/label.md has it."""
    return {
        "Name": "topolora",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(_plugin())],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A server in a process of its own, with its output in a file."""

    def __init__(self, command, log, address):
        self.address, self.log = address, log
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self, path):
        """Until it answers."""
        import requests

        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(requests.RequestException):
                if requests.get(self.address + path, timeout=5).ok:
                    return self
            time.sleep(0.2)
        self.stop()
        raise SystemExit(f"{self.process.args[0]} is not up:\n{self.log.read_text()[-3000:]}")

    def stop(self):
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_orthanc(folder, port=None):
    """Orthanc with its files in a folder; its DICOMweb is at ``address + "/dicom-web"``."""
    port = port or free_port()
    (folder / "storage").mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(orthanc_configuration(folder, port), indent=1))
    command = [orthanc_program(), folder / "orthanc.json"]
    return Program(command, folder / "orthanc.log", f"http://127.0.0.1:{port}").wait("/dicom-web/studies")


def start_label_server(folder, dicomweb, adapter, weights=None):
    port = free_port()
    command = [sys.executable, "-m", "topolora_monai.cli", "label", "--studies", dicomweb, "--adapter", adapter]
    command += ["--weights", weights] if weights else []
    command += ["--workspace", folder / "work", "--port", port]
    return Program(command, folder / "label.log", f"http://127.0.0.1:{port}").wait("/health")


def web_client(dicomweb):
    from dicomweb_client import DICOMwebClient
    from dicomweb_client.session_utils import create_session, create_session_from_user_pass

    login = [os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}") for name in ("USERNAME", "PASSWORD")]
    return DICOMwebClient(dicomweb, create_session_from_user_pass(*login) if all(login) else create_session())


def uid(*parts):
    """The same for the same parts."""
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["topolora_monai round trip", *map(str, parts)])


def _instance(sop_class, modality, series, number, rows, columns):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    instance = Dataset()
    instance.preamble, instance.file_meta = bytes(128), FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.SpecificCharacterSet = "ISO_IR 192"
    instance.SOPClassUID = instance.file_meta.MediaStorageSOPClassUID = sop_class
    instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = uid(series, number)
    instance.StudyInstanceUID, instance.SeriesInstanceUID = uid("study"), uid(series)
    instance.PatientName, instance.PatientID = "Prüfung^Ümit", "TOPOLORA-1"
    instance.PatientBirthDate, instance.PatientSex = "", "O"
    instance.StudyDate, instance.StudyTime, instance.StudyID, instance.AccessionNumber = "20240229", "120000", "1", ""
    instance.ReferringPhysicianName = ""
    instance.Modality, instance.SeriesNumber, instance.SeriesDescription = modality, 1, "generated"
    instance.InstanceNumber = number
    instance.Rows, instance.Columns = rows, columns
    return instance


def generated_series(slices=8, rows=96, columns=80):
    """Oblique MR slices of two bright vessels, in an order that is not theirs in space."""
    import numpy as np

    axis = np.array([0.9, 0.3, -0.2]) / np.linalg.norm([0.9, 0.3, -0.2])
    down = np.cross([0.1, -0.2, 1.0], axis)
    down /= np.linalg.norm(down)
    normal = np.cross(axis, down)
    row, column = np.mgrid[:rows, :columns]
    series = []
    for number in np.random.default_rng(0).permutation(slices):
        values = np.random.default_rng(number).integers(80, 140, (rows, columns))
        values[abs(column - 20 - 15 * np.sin(row / 20) - number) < 3] += 400
        values[abs(row - columns / 2 - column / 3 + 2 * number) < 2] += 300
        instance = _instance("1.2.840.10008.5.1.4.1.1.4", "MR", "series", int(number) + 1, rows, columns)
        instance.ImageType = ["ORIGINAL", "PRIMARY"]
        instance.ScanningSequence, instance.SequenceVariant, instance.ScanOptions = "GR", "NONE", ""
        instance.MRAcquisitionType = "3D"
        instance.FrameOfReferenceUID, instance.PositionReferenceIndicator = uid("frame of reference"), ""
        instance.ImageOrientationPatient = [f"{part:.10f}" for part in (*axis, *down)]
        place = np.array([-31.25, 17.5, 402.125]) + 1.3 * int(number) * normal
        instance.ImagePositionPatient = [f"{part:.8f}" for part in place]
        instance.PixelSpacing, instance.SliceThickness = ["0.7", "0.45"], "1.3"
        instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
        instance.BitsAllocated = instance.BitsStored = 16
        instance.HighBit, instance.PixelRepresentation = 15, 0
        instance.PixelData = values.astype("<u2").tobytes()
        series.append(instance)
    return series


def generated_photographs(rows=120, columns=150):
    """One series of both eyes: the first uncompressed, the second as JPEG."""
    import numpy as np
    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    row, column = np.mgrid[:rows, :columns]
    photographs = []
    for number in (1, 2):
        values = np.full((rows, columns, 3), (190, 90, 40), np.uint8)
        values[abs(row - 40 - 20 * np.sin(column / 25) - 10 * number) < 3] = (110, 30, 20)
        instance = _instance("1.2.840.10008.5.1.4.1.1.77.1.5.1", "OP", "photographs", number, rows, columns)
        instance.ImageType, instance.ImageLaterality = ["ORIGINAL", "PRIMARY", "", "COLOR"], "RL"[number - 1]
        instance.SamplesPerPixel, instance.PlanarConfiguration = 3, 0
        instance.BitsAllocated = instance.BitsStored = 8
        instance.HighBit, instance.PixelRepresentation = 7, 0
        if number == 1:
            instance.PhotometricInterpretation, instance.LossyImageCompression = "RGB", "00"
            instance.PixelData = values.tobytes()
        else:
            stream = io.BytesIO()
            Image.fromarray(values).save(stream, "JPEG", quality=95)
            instance.PhotometricInterpretation, instance.LossyImageCompression = "YBR_FULL_422", "01"
            instance.LossyImageCompressionMethod, instance.LossyImageCompressionRatio = "ISO_10918_1", "10"
            instance.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
            instance.PixelData = encapsulate([stream.getvalue()])
            instance["PixelData"].is_undefined_length = True
        photographs.append(instance)
    return photographs


def read_series(folder):
    """The instances of a folder of one series."""
    from pydicom import dcmread
    from pydicom.misc import is_dicom

    instances = [dcmread(file) for file in sorted(folder.rglob("*")) if file.is_file() and is_dicom(file)]
    instances = [instance for instance in instances if "SeriesInstanceUID" in instance]
    count = len({instance.SeriesInstanceUID for instance in instances})
    if count != 1:
        raise SystemExit(f"{folder}: one DICOM series is needed, found {count}")
    return instances


def segmentations(client, study):
    """All SEG objects of a study by their UID."""
    found = client.search_for_series(study, search_filters={"Modality": "SEG"})
    series = [entry["0020000E"]["Value"][0] for entry in found]
    objects = [instance for name in series for instance in client.retrieve_series(study, name)]
    return {str(instance.SOPInstanceUID): instance for instance in objects}


def listed_image(server, sources):
    """What the annotation server calls the image, once it lists it: UID of the series or of a photograph."""
    import requests

    names = {str(sources[0].SeriesInstanceUID)} | ({str(sources[0].SOPInstanceUID)} if len(sources) == 1 else set())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        listed = _told(requests.get(f"{server}/datastore/", params={"output": "all"}, timeout=60)).json()["objects"]
        if names & set(listed):
            return (names & set(listed)).pop()
        time.sleep(1)
    raise SystemExit("the annotation server does not list the series; is it started with this DICOM server?")


def infer(server, image, folder, model=None):
    """The file of a mask of an image, as the annotation server makes it."""
    import requests

    model = model or next(iter(_told(requests.get(f"{server}/info/", timeout=60)).json()["models"]))
    answer = _told(requests.post(f"{server}/infer/{model}", params={"image": image, "output": "image"}, timeout=3600))
    return save(answer, folder / "mask")


def submit(server, image, mask, **told):
    """Submit a mask as the final label of an image; returns what the server says of it."""
    import requests

    files = {"label": (mask.name, mask.read_bytes())}
    address, params = f"{server}/datastore/label", {"image": image, "tag": "final"}
    return _told(
        requests.put(address, params=params, files=files, data={"params": json.dumps(told)}, timeout=600)
    ).json()


def read_back(server, image, folder):
    """The file of an image's final label."""
    import requests

    return save(_told(requests.get(f"{server}/datastore/label", params={"label": image, "tag": "final"}, timeout=600)),
                folder / "read_back")  # fmt: skip


def save(answer, path):
    suffix = ".png" if answer.content[:4] == b"\x89PNG" else ".nii.gz"
    path = path.with_name(path.name + suffix)
    path.write_bytes(answer.content)
    return path


def _told(answer):
    if not answer.ok:
        raise SystemExit(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text[:500]}")
    return answer


def read_mask(path):
    """Class numbers, (slices, rows, columns), and the image with its geometry."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image)
    return values if values.ndim == 3 else values[None], image


def numbers_by_instance(sources, path):
    """Class numbers of a mask by the UID of the image that they belong to, found by position."""
    values, image = read_mask(path)
    if "ImagePositionPatient" not in sources[0]:
        return {str(sources[0].SOPInstanceUID): values[0]}
    planes = {}
    for source in sources:
        position = [float(part) for part in source.ImagePositionPatient]
        column, row, index = image.TransformPhysicalPointToIndex(position)
        planes[str(source.SOPInstanceUID)] = values[index] if (column, row) == (0, 0) else None
    return planes


def numbers_of_segmentation(segmentation, sources):
    """The same of a DICOM SEG object."""
    import numpy as np

    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    planes = {str(source.SOPInstanceUID): np.zeros(frames.shape[1:], np.uint8) for source in sources}
    for pixels, group in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        plane = planes[referenced(group)]
        if segmentation.SegmentationType == "LABELMAP":
            plane[:] = pixels
        else:
            shared = segmentation.SharedFunctionalGroupsSequence[0]  # has it where all frames are of one segment
            place = group if "SegmentIdentificationSequence" in group else shared
            plane[pixels > 0] = place.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return planes


def referenced(group):
    """UID of the image that a frame belongs to."""
    return str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)


def compare(sources, segmentation, mask):
    """What of a DICOM SEG object is as in its images and in the mask that was submitted."""
    first, by_uid = sources[0], {str(source.SOPInstanceUID): source for source in sources}
    frames = list(segmentation.PerFrameFunctionalGroupsSequence)
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    images = {referenced(group) for group in frames}
    checks = [
        _same("study", first.StudyInstanceUID, segmentation.StudyInstanceUID),
        _same("patient", (first.PatientID, str(first.PatientName)),
              (segmentation.PatientID, str(segmentation.PatientName))),
        _same("series referred to", first.SeriesInstanceUID,
              segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID),
        Check("images referred to", f"of {len(by_uid)}", f"{len(images)}", images <= set(by_uid)),
        _same("frame of reference", first.get("FrameOfReferenceUID"), segmentation.get("FrameOfReferenceUID")),
        _same("rows and columns", (first.Rows, first.Columns), (segmentation.Rows, segmentation.Columns)),
    ]  # fmt: skip
    if "ImagePositionPatient" in first:
        checks += [
            _same("orientation", first.ImageOrientationPatient,
                  shared.PlaneOrientationSequence[0].ImageOrientationPatient),
            _same("pixel spacing", first.PixelSpacing, shared.PixelMeasuresSequence[0].PixelSpacing),
        ]  # fmt: skip
        places = [(by_uid[referenced(group)].ImagePositionPatient, group.PlanePositionSequence[0].ImagePositionPatient)
                  for group in frames if referenced(group) in by_uid]  # fmt: skip
        right = sum(list(expected) == list(found) for expected, found in places)
        checks.append(Check("positions of frames", f"{len(frames)} equal", f"{right} equal", right == len(frames)))
    expected, found = numbers_by_instance(sources, mask), None
    if images <= set(by_uid):
        found = numbers_of_segmentation(segmentation, sources)
    checks.append(_planes("pixels", expected, found))
    return checks


def compare_read_back(sources, mask, copy):
    """Whether a label that was read back is what was submitted."""
    import numpy as np

    checks = [_planes("read back: pixels", numbers_by_instance(sources, mask), numbers_by_instance(sources, copy))]
    if "ImagePositionPatient" in sources[0]:
        (_, sent), (_, got) = read_mask(mask), read_mask(copy)
        for what in ("Origin", "Spacing", "Direction"):
            pair = [np.array(getattr(image, f"Get{what}")()) for image in (sent, got)]
            told = [np.round(values, 4).tolist() for values in pair]
            checks.append(Check(f"read back: {what.lower()}", *told, bool(np.allclose(*pair, atol=1e-5))))
    return checks


def _same(what, expected, found):
    pair = [list(value) if isinstance(value, (tuple, list)) or hasattr(value, "append") else value
            for value in (expected, found)]  # fmt: skip
    return Check(what, *pair, pair[0] == pair[1])


def _planes(what, expected, found):
    import numpy as np

    count = sum(int((plane > 0).sum()) for plane in expected.values() if plane is not None)
    if found is None or any(plane is None for planes in (expected, found) for plane in planes.values()):
        return Check(what, f"{count} of a class", "not in the planes of the images", False)
    differ = sum(int((expected[name] != found[name]).sum()) if np.shape(expected[name]) == np.shape(found[name])
                 else np.size(expected[name]) for name in expected)  # fmt: skip
    return Check(what, f"{count} of a class", f"{differ} differ", differ == 0 and set(expected) == set(found))


def round_trip(server, dicomweb, sources, folder, model=None):
    """Upload, segment, submit, and compare what the DICOM server then has.

    Args:
        server: address of the annotation server.
        dicomweb: address of the DICOM server's DICOMweb.
        sources: the images of one series, or one photograph.
        folder: for files.
        model: to segment with.

    Returns:
        All comparisons.
    """
    client = web_client(dicomweb)
    client.store_instances(sources)
    study = sources[0].StudyInstanceUID
    before = segmentations(client, study)
    image = listed_image(server, sources)
    mask = infer(server, image, folder, model)
    submit(server, image, mask, user="round trip", client_id="orthanc_round_trip")
    new = {name: found for name, found in segmentations(client, study).items() if name not in before}
    checks = [_same("new SEG objects", 1, len(new))]
    for found in new.values():
        checks += compare(sources, found, mask)
    return checks + compare_read_back(sources, mask, read_back(server, image, folder))


def table_of(checks):
    from rich.table import Table

    table = Table("", "expected", "found", "equal", title="DICOM SEG against its series")
    for check in checks:
        table.add_row(check.what, str(check.expected), str(check.found), "yes" if check.equal else "NO")
    return table


def main() -> int:
    arguments = parse_arguments()
    from rich.console import Console

    if not arguments.dicomweb and orthanc_program() is None:
        raise SystemExit("Orthanc with DICOMweb is not installed (Debian: apt install orthanc orthanc-dicomweb)")
    sources = read_series(arguments.series) if arguments.series else generated_series()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="round-trip-")))
        dicomweb, server = arguments.dicomweb, arguments.label_server
        if not dicomweb:
            orthanc = start_orthanc(folder)
            stack.callback(orthanc.stop)
            dicomweb = f"{orthanc.address}/dicom-web"
        if not server:
            label = start_label_server(folder, dicomweb, arguments.adapter, arguments.weights)
            stack.callback(label.stop)
            server = label.address
        checks = round_trip(server.rstrip("/"), dicomweb.rstrip("/"), sources, folder, arguments.model)
    Console().print(table_of(checks))
    return 0 if all(check.equal for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
