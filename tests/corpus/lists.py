"""Broken lists and annotation files around sound images."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus.cases import Case, Must, Write, cut, sparse, written
from tests.corpus.images import MASK, PHOTO, SIZE, picture

_WAYS = ("data_verify", "training_start")
_SQUARE = [3, 4, 17, 4, 17, 20, 3, 20]


def _sound_images(folder: Path) -> None:
    """Five images with masks, ``image0.png`` and so on, in ``images/`` and ``masks/``."""
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for number in range(5):
        picture(np.roll(PHOTO, number, axis=0))(folder / f"images/image{number}.png")
        picture(MASK * 255)(folder / f"masks/image{number}.png")


_NAMED_IN_LISTS = ("images/none.png", "/images", "/dev/", "/3", "etc/passwd", "_image0.png")
"""What an error may name in place of the list: the file that cannot be read, or the mask that was drawn."""


def _list_case(name: str, file: str, write: Write, must: Must = "refuse", short: bool = False) -> Case:
    def make(folder: Path) -> Path:
        _sound_images(folder)
        write(folder / file)
        return folder / file

    return Case(f"list/{name}", make, _WAYS, must, None, short, _NAMED_IN_LISTS)


def _rows() -> list[dict[str, Any]]:
    return [{"image": f"images/image{n}.png", "label": f"masks/image{n}.png"} for n in range(5)]


def _changed(change: Callable[[list[dict[str, Any]]], Any]) -> Write:
    """A datalist after a change of its rows, which may give back other content."""
    rows = _rows()
    content = change(rows)
    return written(json.dumps({"training": rows} if content is None else content).encode())


def _first(**values: Any) -> Write:
    return _changed(lambda rows: rows[0].update(values))


def _datalists() -> Iterator[Case]:
    def case(name: str, write: Write, must: Must = "refuse", short: bool = False) -> Case:
        return _list_case(f"json-{name}", "list.json", write, must, short)

    whole = _changed(lambda rows: None)
    yield case("whole", whole, "read", short=True)
    yield case("empty", written(b""), short=True)
    yield case("cut", cut(whole, 0.7))
    yield case("nul-bytes", written(bytes(1000)))
    yield case("utf-16", written(json.dumps({"training": _rows()}).encode("utf-16")), "survive")
    yield case("not-text", written(b"\xff\xfe\xfa\x00" * 50))
    yield case("deep", written(b"[" * 200_000 + b"]" * 200_000), short=True)
    yield case("deep-in-entry", written(b'{"training": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"))
    yield case("number-of-a-million-digits", written(b'{"training": ' + b"9" * 1_000_000 + b"}"))
    yield case("sparse", sparse(1 << 38), short=True)
    for name, content in {"null": None, "number": 3, "text": "training", "list": [], "no-rows": {"training": []},
                          "rows-of-numbers": {"training": [1, 2]}, "rows-of-null": {"training": [None]},
                          "training-is-text": {"training": "images"}, "training-is-nan": {"training": float("nan")},
                          "validation-is-number": {"training": _rows(), "validation": 3},
                          "test-is-object": {"training": _rows(), "test": {"image": "a"}}}.items():  # fmt: skip
        yield case(name, written(json.dumps(content).encode()), short=name == "rows-of-numbers")
    yield case("image-is-number", _first(image=7))
    yield case("image-is-list", _first(image=["a.png"]))
    yield case("image-is-empty", _first(image=""))
    yield case("image-is-nul", _first(image="images/\0.png"), short=True)
    yield case("mask-is-nul", _first(label="masks/\0.png"))
    yield case("fov-is-nul", _first(fov="\0"))
    yield case("image-of-5000-letters", _first(image="a" * 5000 + ".png"), short=True)
    yield case("mask-of-5000-letters", _first(label="a" * 5000 + ".png"))
    yield case("image-of-half-a-letter", _first(image="\ud800.png"), short=True)
    yield case("image-is-folder", _first(image="images"))
    yield case("image-is-device", _first(image="/dev/zero"))
    yield case("image-is-tty", _first(image="/dev/stdin"))
    yield case("image-is-missing", _first(image="images/none.png"))
    yield case("image-twice", _changed(lambda rows: rows.append(rows[0])))
    yield case("image-twice-by-another-path", _changed(lambda rows: rows.append(
        {"image": "masks/../images/image0.png", "label": "masks/image0.png"})))  # fmt: skip
    yield case("fov-is-number", _first(fov=3))
    yield case("fold-is-text", _first(fold="a"))
    far = _changed(lambda rows: [row.update(fold=10**18 * n) for n, row in enumerate(rows)] and None)
    yield case("fold-is-huge", far, short=True)
    yield case("fold-is-float", _changed(lambda rows: [row.update(fold=0.5) for row in rows] and None))
    yield case("fold-is-true", _changed(lambda rows: [row.update(fold=True) for row in rows] and None))
    yield case("group-of-one", _first(group="a"))
    grouped = [row | {"group": "a"} for row in _rows()]
    divided = json.dumps({"training": grouped[:3], "test": grouped[3:]}).encode()
    yield case("group-in-two-splits", written(divided))


def _tables() -> Iterator[Case]:
    def case(name: str, content: bytes, must: Must = "refuse", short: bool = False) -> Case:
        return _list_case(f"csv-{name}", "list.csv", written(content), must, short)

    rows = "".join(f"images/image{n}.png,masks/image{n}.png\n" for n in range(5)).encode()
    yield case("whole", b"image,label\n" + rows, "read")
    yield case("empty", b"")
    yield case("header-alone", b"image,label\n")
    yield case("without-header", rows, short=True)
    yield case("columns-twice", b"image,label,image\n" + rows)
    yield case("semicolons", b"image;label\n" + rows.replace(b",", b";"))
    yield case("too-many-cells", b"image,label\n" + rows + b"a,b,c,d\n")
    yield case("open-quote", b'image,label\n"images/image0.png,masks/image0.png\n')
    yield case("nul", b"image,label\nimages/\0.png,masks/image0.png\n" + rows, short=True)
    yield case("latin-1", "image,label\nimages/gefäß.png,masks/image0.png\n".encode("latin-1"))
    yield case("unknown-split", b"image,label,split\nimages/image0.png,masks/image0.png,holdout\n")
    yield case("cell-of-a-million", b"image,label\n" + b"a" * 1_000_000 + b".png,masks/image0.png\n", short=True)
    yield case("cell-of-5000", b"image,label\n" + b"a" * 5000 + b".png,masks/image0.png\n" + rows)
    yield case("missing-file", b"image,label\nimages/none.png,masks/image0.png\n" + rows)
    yield case("pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    yield _list_case("csv-sparse", "list.csv", sparse(1 << 38))


def _coco() -> Iterator[Case]:
    def content(segmentation: Any = None, **changes: Any) -> dict[str, Any]:
        images = [{"id": n, "file_name": f"image{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(5)]
        annotations = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [_SQUARE]} for n in range(5)]
        if segmentation is not None:
            annotations[0]["segmentation"] = segmentation
        return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "vessel"}]} | changes

    def case(name: str, value: Any, must: Must = "refuse", short: bool = False) -> Case:
        return _list_case(f"coco-{name}", "coco.json", written(json.dumps(value).encode()), must, short)

    yield case("whole", content(), "read", short=True)
    outlines = {
        "number": 3, "text": "outline", "empty": [], "of-two-points": [[1, 1, 5, 5]], "odd": [[1, 1, 5, 5, 7]],
        "nan": [[float("nan")] * 8], "inf": [[float("inf")] * 8], "words": [["a", "b", "c", "d", "e", "f"]],
        "null": [[None] * 8], "nested": [[[1, 1], [5, 5], [5, 1]]], "huge": [[1e308, -1e308] * 4],
        "bools": [[True, False] * 4],
        "lengths-too-long": {"size": list(SIZE), "counts": [10**15]},
        "lengths-negative": {"size": list(SIZE), "counts": [-5, 485]},
        "lengths-of-floats": {"size": list(SIZE), "counts": [240.0, 240.0]},
        "lengths-of-text": {"size": list(SIZE), "counts": ["240", "240"]},
        "lengths-broken-text": {"size": list(SIZE), "counts": "\x7f\x7f\x01"},
        "lengths-endless-number": {"size": list(SIZE), "counts": "o" * 200_000},
        "lengths-of-other-size": {"size": [100_000, 100_000], "counts": [10**10]},
        "lengths-without-size": {"counts": [480]},
    }  # fmt: skip
    for name, outline in outlines.items():
        must: Must = "survive" if name in ("huge", "bools") else "refuse"
        yield case(f"outline-{name}", content(outline), must, short=name in ("nan", "lengths-too-long", "words"))
    many = [[float(5 + n % 7), float(5 + n % 5)] for n in range(50_000)]
    yield case("outline-of-50000-points", content([[number for point in many for number in point]]), "survive")
    yield case("images-is-object", content(images={"id": 1}))
    yield case("images-of-null", content(images=[None]))
    yield case("annotations-is-text", content(annotations="none"))
    yield case("annotations-of-numbers", content(annotations=[1, 2]), short=True)
    yield case("no-categories", content(categories=[]))
    yield case("category-is-list", content(categories=[{"id": [1], "name": "vessel"}]))
    yield case("id-twice", content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]))
    yield case(
        "image-unknown", content(annotations=[{"id": 0, "image_id": 99, "category_id": 1, "segmentation": [_SQUARE]}])
    )
    yield case("image-id-is-list", content(annotations=[{"id": 0, "image_id": [1], "category_id": 1}]))
    first = {"id": 0, "height": SIZE[0], "width": SIZE[1]}
    for name, file in {"nul": "\0.png", "long": "a" * 5000 + ".png", "number": 3, "null": None, "empty": "",
                       "half-a-letter": "\ud800.png", "folder": "images",
                       "outside": "../../../../etc/passwd"}.items():  # fmt: skip
        value = content(images=[first | {"file_name": file}], annotations=[])
        yield case(f"file-name-{name}", value, short=name in ("nul", "half-a-letter"))
    for name, height in {"text": "24", "negative": -24, "nan": float("nan"), "list": [24], "huge": 10**400}.items():
        value = content(images=[first | {"file_name": "image0.png", "height": height}], annotations=[])
        yield case(f"height-{name}", value)


def _labelme() -> Iterator[Case]:
    sound = {"label": "vessel", "shape_type": "polygon", "points": [[3, 4], [17, 4], [17, 20], [3, 20]]}

    def file(number: int, shapes: Any, **changes: Any) -> bytes:
        name = f"image{number}.png"
        content = {"shapes": shapes, "imagePath": name, "imageHeight": SIZE[0], "imageWidth": SIZE[1]} | changes
        return json.dumps(content).encode()

    def case(name: str, content: bytes, must: Must = "refuse", short: bool = False) -> Case:
        def make(folder: Path) -> Path:
            for number in range(5):
                picture(np.roll(PHOTO, number, axis=0))(folder / f"image{number}.png")
                (folder / f"image{number}.json").write_bytes(content if number == 0 else file(number, [sound]))
            return folder / "image0.json"

        return Case(
            f"list/labelme-{name}", make, ("folder_verify", "folder_training"), must, None, short, ("image0.png",)
        )

    yield case("whole", file(0, [sound]), "read", short=True)
    yield case("cut", file(0, [sound])[:60])
    yield case("empty", b"")
    yield case("deep", b"[" * 200_000, short=True)
    for name, shapes in {"number": 3, "null": None, "of-numbers": [1], "of-null": [None]}.items():
        yield case(f"shapes-{name}", file(0, shapes))
    for name, change in {
        "label-number": {"label": 3}, "label-null": {"label": None}, "points-text": {"points": "many"},
        "points-nan": {"points": [[float("nan")] * 2] * 4}, "points-words": {"points": [["a", "b"]] * 4},
        "points-null": {"points": None}, "points-one": {"points": [[1, 1]]},
        "points-triple": {"points": [[1, 1, 1]] * 4},
        "type-unknown": {"shape_type": "ellipse"}, "type-number": {"shape_type": 7}, "type-list": {"shape_type": ["a"]},
        "point": {"shape_type": "point"}, "line-without-width": {"shape_type": "line"},
        "mask-missing": {"shape_type": "mask"}, "mask-number": {"shape_type": "mask", "mask": 3},
        "mask-no-base64": {"shape_type": "mask", "mask": "???"},
        "mask-no-picture": {"shape_type": "mask", "mask": base64.b64encode(b"no picture").decode()},
        "mask-cut": {"shape_type": "mask", "mask": _encoded(MASK > 0)[:60]},
        "mask-outside": {"shape_type": "mask", "mask": _encoded(MASK > 0), "points": [[15, 20], [40, 40]]},
        "mask-at-1e300": {"shape_type": "mask", "mask": _encoded(MASK > 0), "points": [[1e300, 1e300], [0, 0]]},
        "mask-huge": {"shape_type": "mask", "mask": _encoded(np.zeros((12_000, 12_000), bool))},
    }.items():  # fmt: skip
        yield case(name, file(0, [sound | change]), short=name in ("points-words", "mask-at-1e300", "type-list"))
    huge_circle = sound | {"shape_type": "circle", "points": [[5, 5], [1e300, 5]]}
    yield case("circle-huge", file(0, [huge_circle]), "survive")
    for name, place in {"nul": "\0.png", "long": "a" * 5000, "number": 3, "null": None, "missing": "none.png",
                        "half-a-letter": "\ud800.png"}.items():  # fmt: skip
        yield case(f"path-{name}", file(0, [sound], imagePath=place), short=name == "nul")
    for name, height in {"text": "24", "list": [24], "wrong": 99}.items():
        yield case(f"height-{name}", file(0, [sound], imageHeight=height))


def _encoded(mask: np.ndarray) -> str:
    made = io.BytesIO()
    Image.fromarray(mask).save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def cases() -> Iterator[Case]:
    """All of this module."""
    for make in (_datalists, _tables, _coco, _labelme):
        yield from make()
