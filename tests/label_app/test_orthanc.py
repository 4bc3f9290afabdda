"""A real DICOM server: study in, DICOM SEG out; and what happens when it is away or says something else."""

import importlib.util
import io
import json
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("monailabel", reason="needs MONAI Label: run `make label-test`")

import requests
import SimpleITK
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

import topolora_monai.label_app.main  # noqa: F401 - sets the defaults before MONAI Label is imported
from tests.label_app.test_web_client import WAIT, Client
from topolora_monai.errors import DataError
from topolora_monai.label_app import dicom_server, dicom_store
from topolora_monai.label_app.dicom_seg import dicom_segmentation
from topolora_monai.label_app.dicom_server import DicomImage, DicomServer, DicomServerError
from topolora_monai.label_app.dicom_store import DicomStudies

ROOT = Path(__file__).parents[2]


def load_script():
    spec = importlib.util.spec_from_file_location("orthanc_round_trip", ROOT / "scripts/orthanc_round_trip.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


trip = load_script()
needs_orthanc = pytest.mark.skipif(
    trip.orthanc_program() is None, reason="needs Orthanc: apt install orthanc orthanc-dicomweb"
)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """With the generated series and photographs."""
    program = trip.start_orthanc(tmp_path_factory.mktemp("orthanc"))
    program.dicomweb = f"{program.address}/dicom-web"
    trip.web_client(program.dicomweb).store_instances(trip.generated_series() + trip.generated_photographs())
    yield program
    program.stop()


@pytest.fixture(scope="module")
def server(orthanc, adapter, tmp_path_factory):
    """Address of an annotation server with it."""
    program = trip.start_label_server(tmp_path_factory.mktemp("label"), orthanc.dicomweb, adapter)
    yield program.address
    program.stop()


@pytest.fixture
def series():
    return trip.generated_series()


@pytest.fixture
def client(orthanc):
    return trip.web_client(orthanc.dicomweb)


@pytest.fixture
def mask(server, series, tmp_path):
    """An unsymmetrical label of two classes, in the geometry that the server's image has."""
    answer = requests.get(f"{server}/datastore/image", params={"image": series[0].SeriesInstanceUID}, timeout=60)
    (tmp_path / "image.nii.gz").write_bytes(answer.content)
    return write_two_classes(tmp_path / "image.nii.gz", tmp_path / "label.nrrd")


def write_two_classes(image_path, path):
    """An unsymmetrical label of two classes in the geometry of an image."""
    image = SimpleITK.ReadImage(str(image_path))
    values = np.zeros(image.GetSize()[::-1], np.uint8)
    values[2:5, 3:9, 4:70] = 2
    values[4:7, 50, 4:30] = 1
    label = SimpleITK.GetImageFromArray(values)
    label.CopyInformation(image)
    SimpleITK.WriteImage(label, str(path))
    return path


class TestSegmentationObjects:
    """What is on the DICOM server afterwards."""

    pytestmark = needs_orthanc

    def new(self, client, series, act):
        before = trip.segmentations(client, series[0].StudyInstanceUID)
        answer = act()
        after = trip.segmentations(client, series[0].StudyInstanceUID)
        assert all(after[name] == found for name, found in before.items())
        return answer, [found for name, found in after.items() if name not in before]

    def test_round_trip(self, server, orthanc, series, tmp_path):
        checks = trip.round_trip(server, orthanc.dicomweb, series, tmp_path)
        assert [check for check in checks if not check.equal] == []
        assert {"pixels", "orientation", "positions of frames", "pixel spacing", "frame of reference"} <= {
            check.what for check in checks
        }

    def test_another_program_reads_it_where_the_series_is(self, server, client, series, mask, tmp_path):
        """By dcmqi, against ITK's reading of the series itself."""
        image = series[0].SeriesInstanceUID
        _, (found,) = self.new(client, series, lambda: trip.submit(server, image, mask))
        assert [(segment.SegmentNumber, segment.SegmentLabel) for segment in found.SegmentSequence] == [
            (1, "vessel"), (2, "class 2"),
        ]  # fmt: skip
        assert [check for check in trip.compare(series, found, mask) if not check.equal] == []
        found.save_as(tmp_path / "found.dcm")
        program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
        command = [program, "--inputDICOM", tmp_path / "found.dcm", "--outputDirectory", tmp_path, "--mergeSegments"]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        read = SimpleITK.ReadImage(str(next(tmp_path.glob("*1.nrrd"))))
        (tmp_path / "series").mkdir()
        for number, instance in enumerate(series):
            instance.save_as(tmp_path / f"series/{number}.dcm", enforce_file_format=True)
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "series"))
        source = SimpleITK.ReadImage(names)
        read = SimpleITK.Resample(read, source, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read), trip.read_mask(mask)[0])

    def test_each_submission_is_one_more(self, server, client, series, mask):
        """With who and when; what is there stays as it is, also when an older version is restored."""
        image = str(series[0].SeriesInstanceUID)
        first, (seg,) = self.new(client, series, lambda: trip.submit(server, image, mask, user="Änne", model="tuned"))
        assert (seg.ContentCreatorName, seg.SegmentSequence[0].SegmentAlgorithmName) == ("Änne", "tuned")
        second, more = self.new(client, series, lambda: trip.submit(server, image, mask, user="bo"))
        assert (second["version"], second["user"], len(more)) == (first["version"] + 1, "bo", 1)
        told = requests.get(f"{server}/topolora/api/labels", params={"image": image}, timeout=60).json()
        versions = told["labels"]["final"]
        assert [version["user"] for version in versions[-2:]] == ["Änne", "bo"]
        assert versions[-2]["info"]["SOPInstanceUID"] == seg.SOPInstanceUID
        chosen = {"image": image, "version": first["version"]}
        answer, restored = self.new(
            client, series, lambda: requests.post(f"{server}/topolora/api/labels/restore", json=chosen, timeout=60)
        )
        assert (answer.json()["version"], len(restored)) == (second["version"] + 1, 1)
        assert requests.get(f"{server}/datastore/", timeout=60).json()["completed"] >= 1

    def test_a_label_without_any_pixel(self, server, client, series, mask):
        values, image = trip.read_mask(mask)
        empty = SimpleITK.GetImageFromArray(values * 0)
        empty.CopyInformation(image)
        SimpleITK.WriteImage(empty, str(mask))
        uid = series[0].SeriesInstanceUID
        _, (found,) = self.new(client, series, lambda: trip.submit(server, uid, mask))
        assert found.NumberOfFrames == len(found.SegmentSequence)
        assert not found.pixel_array.any()

    def test_bytes_without_header(self, server, client, series, mask, tmp_path):
        """As OHIF submits."""
        raw = tmp_path / "label.bin"
        raw.write_bytes(trip.read_mask(mask)[0].tobytes())
        uid = series[0].SeriesInstanceUID
        _, (found,) = self.new(client, series, lambda: trip.submit(server, uid, raw))
        assert [check for check in trip.compare(series, found, mask) if not check.equal] == []

    @pytest.mark.parametrize("change", ["moved", "smaller", "short"])
    def test_label_of_another_place_is_refused(self, server, client, series, mask, change):
        values, image = trip.read_mask(mask)
        if change == "moved":
            image.SetOrigin([place + 1 for place in image.GetOrigin()])
        elif change == "smaller":
            image = image[:, :, 1:]
        SimpleITK.WriteImage(image, str(mask))
        if change == "short":
            mask = mask.with_suffix(".bin")
            mask.write_bytes(values[1:].tobytes())
        with pytest.raises(SystemExit, match=r"422.*(lies elsewhere|another size)"):
            self.new(client, series, lambda: trip.submit(server, series[0].SeriesInstanceUID, mask))

    @pytest.mark.parametrize("eye", [0, 1])
    def test_photographs(self, server, orthanc, eye, tmp_path):
        """Each eye of a series is an image: uncompressed, and as JPEG."""
        source = trip.generated_photographs()[eye]
        checks = trip.round_trip(server, orthanc.dicomweb, [source], tmp_path)
        assert [check for check in checks if not check.equal] == []
        shown = requests.get(f"{server}/topolora/api/picture", params={"image": source.SOPInstanceUID}, timeout=60)
        expected = np.frombuffer(trip.generated_photographs()[0].PixelData, np.uint8).reshape(120, 150, 3)
        found = np.asarray(Image.open(io.BytesIO(shown.content))).astype(int)
        moved = np.roll(expected, 10 * eye, axis=0)[10:]
        assert abs(found[10:] - moved).mean() < (1 if eye == 0 else 6)

    def test_inference_as_segmentation(self, server, series, tmp_path):
        """As some viewers ask for it: nothing is submitted."""
        image = str(series[0].SeriesInstanceUID)
        params = {"params": '{"label_info": [{"name": "retinal artery"}]}'}
        address = f"{server}/infer/adapter"
        answer = requests.post(address, params={"image": image, "output": "dicom_seg"}, data=params, timeout=60)
        found = dcmread(io.BytesIO(answer.content))
        assert found.SegmentSequence[0].SegmentLabel == "retinal artery"
        assert found.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Artery"
        mask = trip.infer(server, image, tmp_path)
        assert [check for check in trip.compare(series, found, mask) if not check.equal] == []

    def test_comparison_sees_what_differs(self, server, client, series, mask):
        """A label one pixel off, or frames in other places, are not called equal."""
        image = series[0].SeriesInstanceUID
        _, (found,) = self.new(client, series, lambda: trip.submit(server, image, mask))
        values, geometry = trip.read_mask(mask)
        values[0, 0, 0] = 1
        other = SimpleITK.GetImageFromArray(values)
        other.CopyInformation(geometry)
        SimpleITK.WriteImage(other, str(mask))
        assert [check.what for check in trip.compare(series, found, mask) if not check.equal] == ["pixels"]
        values[0, 0, 0] = 0
        other = SimpleITK.GetImageFromArray(values)
        other.CopyInformation(geometry)
        SimpleITK.WriteImage(other, str(mask))
        frame = found.PerFrameFunctionalGroupsSequence[0]
        frame.PlanePositionSequence[0].ImagePositionPatient[2] += 0.001
        found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = ["0.45", "0.7"]
        differ = [check.what for check in trip.compare(series, found, mask) if not check.equal]
        assert differ == ["pixel spacing", "positions of frames"]

    def test_stopped_server(self, server, orthanc, client, series, mask):
        """A sentence instead of a label that is lost; afterwards everything goes on."""
        image = str(series[0].SeriesInstanceUID)
        before = requests.get(f"{server}/topolora/api/labels", params={"image": image}, timeout=60).json()
        orthanc.stop()
        with pytest.raises(SystemExit, match=r"502.*the DICOM server does not answer.*to do"):
            trip.submit(server, image, mask)
        time.sleep(dicom_store._LIST_SECONDS)
        for path in ("/info/", "/datastore/", "/topolora/api/images"):
            answer = requests.get(server + path, timeout=60)
            assert answer.status_code == 502
            assert "the DICOM server does not answer" in answer.json()["detail"]
        assert requests.get(f"{server}/health", timeout=60).ok
        folder, port = orthanc.log.parent, int(orthanc.address.rpartition(":")[2])
        orthanc.process = trip.start_orthanc(folder, port).process
        after = requests.get(f"{server}/topolora/api/labels", params={"image": image}, timeout=60).json()
        assert after == before
        _, found = self.new(client, series, lambda: trip.submit(server, image, mask))
        assert len(found) == 1


@needs_orthanc
class TestWebClient:
    def test_photograph_from_automatic_mask_to_segmentation_object(self, browser, orthanc, server, client):
        """What the page shows and submits is what the DICOM server then has."""
        source = trip.generated_photographs()[0]
        before = trip.segmentations(client, source.StudyInstanceUID)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        page = Client(context.new_page(), SimpleNamespace(url=server)).open().image(str(source.SOPInstanceUID))
        page.page.locator("#user").fill("Ann")
        page.page.locator("#user").blur()
        page.page.keyboard.press("e")  # whatever the mask is, a stroke of the eraser and one of the brush change it
        page.stroke((40, 60), (60, 60))
        page.page.keyboard.press("b")
        page.stroke((80, 60), (100, 60))
        page.submit()
        assert page.said == []
        context.close()
        (seg,) = [
            found for uid, found in trip.segmentations(client, source.StudyInstanceUID).items() if uid not in before
        ]
        kept = page.label(str(source.SOPInstanceUID))
        assert (kept[60, 40:61].any(), kept[60, 80:101].all(), seg.ContentCreatorName) == (False, True, "Ann")
        np.testing.assert_array_equal(seg.pixel_array.reshape(kept.shape), kept == 1)
        referred = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
        assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID


@needs_orthanc
class TestOhif:
    BRIGHTEST = """() => Math.max(0, ...[...document.querySelectorAll("canvas")].map((canvas) => {
        const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
        const context = copy.getContext("2d");
        context.drawImage(canvas, 0, 0);
        const { data } = context.getImageData(0, 0, copy.width, copy.height);
        return data.reduce((most, value, index) => (index % 4 ? most : Math.max(most, value)), 0);
    }))"""

    def test_compressed_slices_are_not_black(self, browser, server, client, series):
        """JPEG 2000 is decoded by WebAssembly, in a worker."""
        for instance in series:
            values = np.frombuffer(instance.PixelData, "<u2").reshape(instance.Rows, instance.Columns)
            stream = io.BytesIO()
            Image.fromarray(values).save(stream, "JPEG2000", no_jp2=True)
            instance.file_meta.TransferSyntaxUID = JPEG2000Lossless
            instance.PixelData = encapsulate([stream.getvalue()])
            instance["PixelData"].is_undefined_length = True
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                setattr(instance, keyword, trip.uid("compressed", instance[keyword].value))
            instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        client.store_instances(series)
        context = browser.new_context(viewport={"width": 800, "height": 600})
        page = context.new_page()
        address = f"{server}/ohif/viewer?StudyInstanceUIDs={series[0].StudyInstanceUID}"
        page.goto(address, wait_until="commit", timeout=WAIT)
        end, brightest = time.monotonic() + WAIT / 1000, 0
        while brightest < 100 and time.monotonic() < end:
            page.wait_for_timeout(1000)
            brightest = page.evaluate(self.BRIGHTEST)
        context.close()
        assert brightest >= 100


@needs_orthanc
class TestCopies:
    @pytest.fixture
    def studies(self, orthanc, tmp_path, monkeypatch):
        monkeypatch.setattr(dicom_store, "_LIST_SECONDS", 0)
        return DicomStudies(DicomServer(DICOMwebClient(orthanc.dicomweb), {}), tmp_path / "copies")

    def test_series_that_is_still_growing(self, studies, client, series):
        grown = [trip.generated_series()[number] for number in range(len(series))]
        for instance in grown:
            instance.SeriesInstanceUID = trip.uid("growing")
            name = trip.uid("growing", instance.InstanceNumber)
            instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = name
        inside = [instance for instance in grown if instance.InstanceNumber <= 5]
        client.store_instances(inside)
        name = str(trip.uid("growing"))
        assert studies.get_image_info(name)["shape"] == [5, None, None]
        assert SimpleITK.ReadImage(studies.get_image_uri(name)).GetSize() == (80, 96, 5)
        client.store_instances([instance for instance in grown if instance.InstanceNumber > 5])
        assert SimpleITK.ReadImage(studies.get_image_uri(name)).GetSize() == (80, 96, 8)

    def test_interrupted(self, studies, series, monkeypatch):
        """Nothing is left that could be taken for the series."""
        name = str(series[0].SeriesInstanceUID)
        with monkeypatch.context() as patch:
            patch.setattr(dicom_store, "_as_volume", lambda files: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                studies.get_image_uri(name)
        assert list(studies.folder.glob("*/*.dcm")) == []
        assert SimpleITK.ReadImage(studies.get_image_uri(name)).GetSize() == (80, 96, 8)

    def test_once(self, studies, series, monkeypatch):
        name = str(series[0].SeriesInstanceUID)
        fetched = []
        original = studies.server.fetch
        monkeypatch.setattr(studies.server, "fetch", lambda image: fetched.append(image) or original(image))
        callers = [threading.Thread(target=studies.get_image_uri, args=(name,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(fetched) == 1

    def test_list(self, studies, series):
        """Series, and photographs one by one; nothing that is no image."""
        listed = studies.list_images()
        photographs = {str(instance.SOPInstanceUID) for instance in trip.generated_photographs()}
        assert {str(series[0].SeriesInstanceUID), *photographs} <= set(listed)
        assert studies.get_image_info(sorted(photographs)[0])["name"].startswith("TOPOLORA-1 20240229 OP generated")
        assert all(studies.server.images()[place].modality != "SEG" for place in range(len(listed)))

    @pytest.fixture
    def label(self, studies, series, tmp_path):
        """Of two classes, in the geometry of the series."""
        image = studies.get_image_uri(str(series[0].SeriesInstanceUID))
        return write_two_classes(image, tmp_path / "label.nrrd")

    @pytest.mark.parametrize("photograph", [False, True], ids=["grey", "colour"])
    @pytest.mark.parametrize(("label_map", "kind", "number"), [(False, "BINARY", "4"), (True, "LABELMAP", "7")])
    def test_round_trip(self, studies, client, series, label, label_map, kind, number, photograph, tmp_path):
        """Of bits and of a label map (Supplement 243), of grey slices and of a colour photograph."""
        sources = trip.generated_photographs()[:1] if photograph else series
        name = str(sources[0].SOPInstanceUID if photograph else sources[0].SeriesInstanceUID)
        if photograph:
            label = tmp_path / "label.png"
            Image.fromarray(np.tril(np.full((120, 150), 3, np.uint8))).save(label)
        studies._label_map = label_map
        version = studies.submit(name, label, "final", {}, "ann")
        (found,) = client.retrieve_series(sources[0].StudyInstanceUID, version.info["SeriesInstanceUID"])
        assert (found.SegmentationType, found.SOPClassUID) == (kind, f"1.2.840.10008.5.1.4.1.1.66.{number}")
        assert [check for check in trip.compare(sources, found, label) if not check.equal] == []

    def test_objects_of_another_program_are_read_as_labels(self, studies, client, series, label, tmp_path):
        """Of dcmqi, whose segments are called otherwise than the classes are numbered; once."""
        (tmp_path / "series").mkdir()
        for number, instance in enumerate(series):
            instance.save_as(tmp_path / f"series/{number}.dcm", enforce_file_format=True)
        code = {"CodeValue": "91723000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical structure"}
        codes = {f"SegmentedProperty{kind}CodeSequence": code for kind in ("Category", "Type")}
        segments = [
            {"labelID": number, "SegmentLabel": name, "SegmentDescription": name, "SegmentAlgorithmType": "MANUAL"}
            | codes
            for number, name in ((1, "VEIN"), (2, "Artery"))
        ]
        told = {
            "ContentCreatorName": "Doe^Jo",
            "SeriesDescription": "other",
            "SeriesNumber": "9",
            "InstanceNumber": "1",
        }
        (tmp_path / "meta.json").write_text(json.dumps(told | {"segmentAttributes": [segments]}))
        program = shutil.which("itkimage2segimage", path=str(Path(sys.executable).parent))
        command = [program, "--inputImageList", label, "--inputDICOMDirectory", tmp_path / "series"]
        command += ["--inputMetadata", tmp_path / "meta.json", "--outputDICOM", tmp_path / "other.dcm", "--skip"]
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
        client.store_instances([dcmread(tmp_path / "other.dcm")])
        studies._class_names = lambda: {1: "artery", 2: "vein"}
        name = str(series[0].SeriesInstanceUID)
        read = studies.read_segmentations(name)
        version = next(version for version in read if version.user == "Doe^Jo")
        expected = trip.read_mask(label)[0]
        found = trip.read_mask(studies.history.path(version))[0]
        np.testing.assert_array_equal(found, np.array([0, 2, 1], np.uint8)[expected])
        assert studies.read_segmentations(name) == []
        assert "dicom" in studies.get_labels_by_image_id(name)

    def test_object_of_another_image_is_no_label(self, studies, series):
        photograph = trip.generated_photographs()[0]
        seg = dicom_segmentation(np.ones((120, 150), np.uint8), [photograph], {})
        with pytest.raises(DataError, match="not of this image"):
            studies.label_of_segmentation(str(series[0].SeriesInstanceUID), seg)

    def test_upstream(self, orthanc, tmp_path):
        """What MONAI Label's own datastore does, which ours is for."""
        from monailabel.config import Settings
        from monailabel.datastore.dicom import DICOMWebDatastore

        assert Settings.model_fields["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"].default == {"Modality": "CT"}
        store = DICOMWebDatastore(DICOMwebClient(orthanc.dicomweb), {"Modality": "CT"}, str(tmp_path))
        assert store.list_images() == []
        photograph = trip.generated_photographs()[0]
        with pytest.raises(Exception):  # noqa: B017 - whatever comes of a name it does not know
            store.get_image_uri(str(photograph.SOPInstanceUID))


class Fake:
    """A DICOM server in this process."""

    address = "here"

    def __init__(self, instances):
        self.instances, self.fetched = instances, 0

    def images(self):
        first = self.instances[0]
        return [DicomImage("1.2", str(first.SeriesInstanceUID), first.Modality, len(self.instances))]

    def fetch(self, image):
        self.fetched += 1
        return self.instances

    def segmentations(self, image, seen):
        return []


class TestImagesThatAreNone:
    def uri(self, instances, tmp_path):
        return DicomStudies(Fake(instances), tmp_path).get_image_uri(str(instances[0].SeriesInstanceUID))

    def test_slices_without_position(self, series, tmp_path):
        for instance in series:
            del instance.ImagePositionPatient
        with pytest.raises(DataError, match="no volume"):
            self.uri(series, tmp_path)

    def test_gap(self, series, tmp_path):
        kept = [instance for instance in series if instance.InstanceNumber != 4]
        with pytest.raises(DataError, match="not evenly spaced"):
            self.uri(kept, tmp_path)

    def test_several_frames(self, series, tmp_path):
        series[0].NumberOfFrames = 2
        series[0].PixelData = series[0].PixelData * 2
        with pytest.raises(DataError, match="several frames"):
            self.uri(series[:1], tmp_path)

    def test_is_not_asked_for_again(self, series, tmp_path):
        """Nor given to an annotator as the next one."""
        store = DicomStudies(Fake(series[:1] + series[3:]), tmp_path)
        name = str(series[0].SeriesInstanceUID)
        assert store.get_unlabeled_images() == [name]
        for _ in range(2):
            with pytest.raises(DataError, match="not evenly spaced"):
                store.get_image_uri(name)
        assert store.server.fetched == 1
        assert store.get_unlabeled_images() == []

    def test_name_that_leads_out(self, series, tmp_path):
        for instance in series:
            instance.SOPInstanceUID = "../outside"
        with pytest.raises(Exception, match="refused"):
            self.uri(series, tmp_path)
        assert not list(tmp_path.parent.glob("outside*"))


class TestAnswers:
    """Of servers that are none, or hang."""

    @pytest.fixture
    def answering(self):
        servers = []

        def start(status=200, body=b"<html>", kind="text/html", seconds=0):
            class Handler(BaseHTTPRequestHandler):
                def log_message(self, *arguments):
                    pass

                def do_GET(self):
                    time.sleep(seconds)
                    self.send_response(status)
                    self.send_header("content-type", kind)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
            return DicomServer(DICOMwebClient(f"http://127.0.0.1:{server.server_port}/dicom-web"), {})

        yield start
        for server in servers:
            server.shutdown()

    def test_page(self, answering):
        with pytest.raises(DicomServerError, match="as DICOMweb lays down"):
            answering().images()

    def test_unknown_address(self, answering):
        with pytest.raises(DicomServerError, match="404"):
            answering(404).images()

    def test_refused(self, answering):
        with pytest.raises(DicomServerError, match="401"):
            answering(401).images()

    def test_hangs(self, answering, monkeypatch):
        monkeypatch.setattr(dicom_server.settings, "MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT", 0.2)
        with pytest.raises(DicomServerError, match="does not answer"):
            answering(seconds=5).images()

    def test_away(self):
        server = DicomServer(DICOMwebClient(f"http://127.0.0.1:{trip.free_port()}/dicom-web"), {})
        with pytest.raises(DicomServerError, match="does not answer"):
            server.images()

    def test_nothing_is_asked_at_the_start(self, tmp_path):
        server = DicomServer(DICOMwebClient(f"http://127.0.0.1:{trip.free_port()}/dicom-web"), {})
        assert DicomStudies(server, tmp_path).name() == server.address

    def test_name_that_is_no_uid(self, answering):
        body = b'[{"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": ["../etc"]}}]'
        assert answering(body=body, kind="application/dicom+json").images() == []
