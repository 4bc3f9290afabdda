"""Questions to a DICOM server by DICOMweb, ours and OHIF's, and what may go wrong with them."""

import re
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from fastapi import HTTPException
from monailabel.config import settings
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from requests.adapters import HTTPAdapter
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from topolora_monai.errors import TopoLoRAError
from topolora_monai.label_app.names import leads_out

PHOTOGRAPHS = frozenset({"OP", "XC", "ES", "GM", "DMS"})
"""Modalities of photographs: every instance of a series is an image of its own."""

_NO_IMAGES = frozenset(
    {"SEG", "SR", "PR", "KO", "DOC", "REG", "FID", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "ECG"}
)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_CONNECT_SECONDS = 5.0


class DicomServerError(TopoLoRAError):
    """A DICOM server that cannot be reached, or does not do what it is asked to."""


@dataclass(frozen=True)
class DicomImage:
    """A series of slices, or one photograph of a series, then with the ``instance`` it is.

    ``count`` is the number of instances, 0 where the server does not tell; ``facts`` are words for a list.
    """

    study: str
    series: str
    modality: str
    count: int
    instance: str | None = None
    facts: Mapping[str, str] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """UID of the series, or of the instance if the series has several photographs."""
        return self.instance or self.series


class DicomServer:
    """A DICOM server, by a client of DICOMweb; every question raises ``DicomServerError`` where it does not answer.

    ``search_filter`` are attributes that series must have, by keyword.
    """

    def __init__(self, client: Any, search_filter: Mapping[str, Any]) -> None:
        self._client = client
        self._filter = dict(search_filter)
        client.set_http_retry_params(retry=False)  # half a minute before it tells that nobody is there
        # The client has no time limits of its own: a server that hangs would hold every thread.
        client._session.mount(client.protocol + "://", _Timed())

    @property
    def address(self) -> str:
        """Of its DICOMweb interface."""
        return str(self._client.base_url)

    def images(self) -> list[DicomImage]:
        """All series of images, and photographs one by one, in the server's order."""
        with self._asking("list its series"):
            found = [
                Dataset.from_json(series) for series in self._client.search_for_series(search_filters=self._filter)
            ]
            return [image for series in found for image in self._images_of(series)]

    def segmentations(self, image: DicomImage, seen: Container[str]) -> list[Dataset]:
        """SEG objects in the study of an image, of series that were not seen yet, the latest last."""
        with self._asking("send segmentations"):
            found = self._client.search_for_series(image.study, search_filters={"Modality": "SEG"})
            uids = [str(Dataset.from_json(series).SeriesInstanceUID) for series in found]
            objects = [
                part for uid in uids if uid not in seen for part in self._client.retrieve_series(image.study, uid)
            ]
        return sorted(objects, key=lambda seg: (str(seg.get("ContentDate", "")), str(seg.get("ContentTime", ""))))

    def fetch(self, image: DicomImage) -> list[Dataset]:
        """All instances of an image, with their pixels."""
        with self._asking("send an image"):
            if image.instance:
                return [self._client.retrieve_instance(image.study, image.series, image.instance)]
            return list(self._client.retrieve_series(image.study, image.series))

    def store(self, instance: Dataset) -> None:
        """Keep an instance on the server."""
        with self._asking("keep a label"):
            answer = self._client.store_instances([instance])
        refused = answer.get("FailedSOPSequence") or []
        if refused:
            reason = refused[0].get("FailureReason", "unknown")
            raise DicomServerError("the DICOM server refused the label", found=f"{self.address}: reason {reason}")

    def _images_of(self, series: Dataset) -> Iterator[DicomImage]:
        study, uid = str(series.get("StudyInstanceUID", "")), str(series.get("SeriesInstanceUID", ""))
        modality, count = str(series.get("Modality", "")), int(series.get("NumberOfSeriesRelatedInstances") or 0)
        if modality in _NO_IMAGES or not (_UID.fullmatch(study) and _UID.fullmatch(uid)):
            return
        facts = _facts(series, "PatientID", "StudyDate", "Modality", "SeriesDescription")
        if modality not in PHOTOGRAPHS or count == 1:
            yield DicomImage(study, uid, modality, count, None, facts)
            return
        for entry in self._client.search_for_instances(study, uid):
            instance = Dataset.from_json(entry)
            name = str(instance.get("SOPInstanceUID", ""))
            if _UID.fullmatch(name):
                yield DicomImage(study, uid, modality, 1, name, {**facts, **_facts(instance, "InstanceNumber")})

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "no status"
            raise DicomServerError(f"the DICOM server did not {what}", found=f"{self.address}: {status}") from error
        except (InvalidDicomError, ValueError, KeyError, AttributeError, TypeError) as error:
            # An answer that is no DICOMweb; requests has an error that is both of this kind and of the next.
            raise DicomServerError(
                f"the DICOM server did not {what} as DICOMweb lays down",
                found=f"{self.address}: {error}",
                hint="check that --studies is the address of DICOMweb, such as http://pacs:8042/dicom-web",
            ) from error
        except requests.RequestException as error:
            raise DicomServerError(
                "the DICOM server does not answer",
                found=f"{self.address}: {type(error).__name__}",
                hint="start it, or check the address that --studies was given",
            ) from error


class _Timed(HTTPAdapter):
    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = kwargs.get("timeout") or (_CONNECT_SECONDS, settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT)
        return super().send(request, *args, **kwargs)


def _facts(found: Dataset, *keywords: str) -> dict[str, str]:
    return {keyword: str(found.get(keyword)) for keyword in keywords if found.get(keyword) not in (None, "")}


async def forward(request: Any, op: str, path: str) -> Response:
    """Pass a request on to the DICOM server and its answer back: the proxy of OHIF, for DICOMweb alone.

    Of its headers only those that describe the body go on. ``op``, ``wado``, ``qido``, ``stow`` or nothing, names the
    prefix that the path is below.

    Raises:
        HTTPException: 404 without a DICOM server, 400 for a path that leads out, 502 if the server does not answer.
    """
    server = settings.MONAI_LABEL_STUDIES.rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise HTTPException(404, "the studies are not on a DICOM server")
    if leads_out(path):
        raise HTTPException(400, "the path leads out of DICOMweb")
    op = "wado" if op == "qido" and path.endswith("metadata") else op  # as some releases of OHIF ask
    prefix = getattr(settings, f"MONAI_LABEL_{op.upper()}_PREFIX", None) if op else None
    address = "/".join(part for part in (server, prefix, path) if part)
    headers = {name: value for name, value in request.headers.items() if name in ("accept", "content-type")}
    body = await request.body()
    answer = await run_in_threadpool(_ask, request.method, address, request.url.query, headers, body)
    return Response(
        answer.content,
        answer.status_code,
        {name: value for name, value in answer.headers.items() if name.lower() == "content-type"},
    )


def _ask(method: str, address: str, query: str, headers: dict[str, str], body: bytes) -> requests.Response:
    name, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    try:
        return requests.request(
            "POST" if method == "POST" else "GET",
            f"{address}?{query}" if query else address,
            auth=(name, password) if name and password else None,
            headers=headers,
            data=body or None,
            timeout=settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT,
        )
    except requests.RequestException as error:
        raise HTTPException(502, "the DICOM server does not answer") from error
