"""CVC-ClinicDB: polyps in colonoscopy, also known as CVC-612."""

from __future__ import annotations

from topolora_monai.data.benchmark import Benchmark, Facts, Splits, hold_out
from topolora_monai.data.download import Archive
from topolora_monai.data.layout import Part, find_folder, pairs, unwrap
from topolora_monai.data.split_lists import split_list

__all__ = ["CvcClinicDb"]

_LABELS = ("Ground Truth", "GroundTruth", "Ground_Truth")


class CvcClinicDb(Benchmark):
    """612 frames of colonoscopy videos with polyp masks, 384x288.

    Layout: ``Original/N.tif`` and ``Ground Truth/N.tif`` with N from 1 to 612; PNG copies are taken, too. The owners
    publish no split; ``550/62`` is PraNet's, with every tenth training image held out for validation. Frames of one
    video fall on both sides of it.

    Classes: background, polyp. Terms: research use. Cite: Bernal et al., "WM-DOVA maps for accurate polyp
    highlighting in colonoscopy", Comput. Med. Imaging Graph. 43, 2015. Arguments: see
    :class:`~topolora_monai.data.Benchmark`.
    """

    name = "cvc_clinicdb"
    facts = Facts(
        title="CVC-ClinicDB",
        size="384x288",
        classes=("background", "polyp"),
        counts={"550/62": (495, 55, 62)},
        layout="Original/ and Ground Truth/",
        licence="research use, citation required",
        citation="Bernal et al., Comput. Med. Imaging Graph. 43:99-111, 2015",
        homepage="https://polyp.grand-challenge.org/CVCClinicDB",
        access="get CVC-ClinicDB.rar by the link on polyp.grand-challenge.org/CVCClinicDB and unpack it",
        archives=(Archive("CVC-ClinicDB.rar", creates="Original"), Archive("CVC-ClinicDB.zip", creates="Original")),
    )

    def _list(self) -> Splits:
        root = unwrap(self.root, lambda folder: find_folder(folder, "Original") is not None)
        images = find_folder(root, "Original") if root else None
        labels = find_folder(root, *_LABELS) if root else None
        if images is None or labels is None:
            raise self._not_here()
        items = pairs(images, label=Part(labels, str))
        test = split_list("cvc_clinicdb_pranet_test")
        training, validation = hold_out([item for item in items if item["name"] not in test], every=10)
        return {
            "training": training,
            "validation": validation,
            "test": [item for item in items if item["name"] in test],
        }
