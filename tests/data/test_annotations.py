"""Masks drawn from COCO's and labelme's files, and what is wrong with a file named."""

import base64
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_shapes import encode
from topolora_monai.data import annotation_files
from topolora_monai.data.coco import read_coco
from topolora_monai.data.items import check_items
from topolora_monai.data.labelme import read_labelme
from topolora_monai.errors import ConfigError, DataError

HEIGHT, WIDTH = 24, 30


def pixels(item) -> np.ndarray:
    return np.asarray(Image.open(item["label"]))


def box(x, y, width, height) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def blob() -> np.ndarray:
    """A disc with a hole."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - 12, columns - 15)
    return (distance < 9) & (distance > 4)


@pytest.fixture
def coco(write_image, tmp_path):
    """Four images, two categories; returns the content and a function that writes it."""
    for name in "abcd":
        write_image(f"set/images/{name}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    lengths, text = encode(blob())
    shapes = [
        (1, 10, [box(2, 3, 10, 10)], 0),
        (1, 20, [box(20, 0, 4, 5), box(22, 2, 4, 5)], 0),
        (2, 10, {"size": [HEIGHT, WIDTH], "counts": lengths}, 1),
        (3, 20, {"size": [HEIGHT, WIDTH], "counts": text}, 0),
    ]
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            for number, name in ((4, "d"), (1, "a"), (2, "b"), (3, "c"))
        ],
        "annotations": [
            {"id": 100 + n, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
            for n, (image, category, segmentation, crowd) in enumerate(shapes)
        ],
        "categories": [{"id": 10, "name": "vessel"}, {"id": 20, "name": "lesion"}],
    }

    def write(changed=content) -> Path:
        (tmp_path / "set/annotations.json").write_text(json.dumps(changed))
        return tmp_path / "set/annotations.json"

    return content, write


class TestCoco:
    def test_masks(self, coco):
        items = read_coco(coco[1]())
        assert [item["name"] for item in items] == ["a", "b", "c", "d"]
        check_items(items)
        a, b, c, d = (pixels(item) for item in items)
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[3:13, 2:12] = expected[0:5, 20:24] = expected[2:7, 22:26] = 255  # parts and annotations unite
        assert np.array_equal(a, expected)
        assert (a > 0).sum() == 100 + 20 + 20 - 6
        assert np.array_equal(b > 0, blob())  # a crowd, with its hole
        assert np.array_equal(c > 0, blob())
        assert not d.any()

    def test_chosen_categories(self, coco):
        lesion = read_coco(coco[1](), categories=["lesion"])
        assert [(pixels(item) > 0).sum() for item in lesion] == [34, 0, blob().sum(), 0]
        with pytest.raises(ConfigError, match="did you mean vessel"):
            read_coco(coco[1](), categories=["vesel"])

    def test_edited_file_is_drawn_again_and_an_old_one_is_not(self, coco, monkeypatch):
        content, write = coco
        first = read_coco(write())
        drawn = []
        draw = annotation_files._draw
        monkeypatch.setattr(
            annotation_files, "_draw", lambda annotated: drawn.append(annotated.mask_name) or draw(annotated)
        )
        assert read_coco(write()) == first
        assert drawn == []
        content["annotations"][0]["segmentation"] = [box(2, 3, 10, 11)]
        second = read_coco(write())
        assert len(drawn) == 4
        assert (pixels(second[0]) > 0).sum() == (pixels(first[0]) > 0).sum() + 10
        Path(second[1]["label"]).unlink()
        assert read_coco(write()) == second
        assert len(drawn) == 5

    def test_interrupted_drawing_leaves_whole_files_and_goes_on(self, coco, monkeypatch, tmp_path):
        save, saved = Image.Image.save, []

        def interrupted(image, file, **how):
            if len(saved) == 2:
                Path(file).write_bytes(b"half")
                raise KeyboardInterrupt
            saved.append(file)
            save(image, file, **how)

        path = coco[1]()
        with monkeypatch.context() as until_then:
            until_then.setattr(Image.Image, "save", interrupted)
            with pytest.raises(KeyboardInterrupt):
                read_coco(path)
        left = sorted(tmp_path.glob("set/annotations_masks/*/*"))
        assert len(left) == 2
        times = [file.stat().st_mtime_ns for file in left]
        check_items(read_coco(path))
        assert [file.stat().st_mtime_ns for file in left] == times
        assert len(list(left[0].parent.iterdir())) == 4

    @pytest.mark.parametrize("damage", [b"", b"no picture", None])
    def test_damaged_masks_are_drawn_again(self, coco, damage):
        path = coco[1]()
        items = read_coco(path)
        meant = [pixels(item) for item in items]
        file = Path(items[1]["label"])
        file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
        assert read_coco(path) == items
        assert all(np.array_equal(pixels(item), mask) for item, mask in zip(items, meant, strict=True))

    def test_no_place_to_keep_masks_at_all(self, coco, tmp_path, monkeypatch):
        path = coco[1]()
        meant = [pixels(item) for item in read_coco(path)]
        path.with_name("annotations_masks").rename(tmp_path / "elsewhere")
        path.with_name("annotations_masks").touch()
        (tmp_path / "cache").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        items = read_coco(path)
        check_items(items)
        assert all(np.array_equal(pixels(item), mask) for item, mask in zip(items, meant, strict=True))

    def test_places_of_images(self, coco, write_image, tmp_path):
        path = coco[1]()
        beside = tmp_path / "set/annotations/all.json"
        beside.parent.mkdir()
        beside.write_text(path.read_text())
        assert read_coco(beside)[0]["image"] == read_coco(path)[0]["image"]
        write_image("set/a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        with pytest.raises(DataError, match=r"several image files \(image 1\)"):
            read_coco(path)

    def test_equal_stems_get_masks_of_their_own(self, coco, write_image):
        content, write = coco
        for name in "ab":
            write_image(f"set/images/{name}/x.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        content["images"][1]["file_name"], content["images"][2]["file_name"] = "a/x.png", "b/x.png"
        items = {Path(item["image"]).parent.name: item for item in read_coco(write())}
        assert [(pixels(items[name]) > 0).sum() for name in "ab"] == [134, blob().sum()]

    def test_masks_go_to_the_cache_where_their_place_cannot_be_written(self, coco, tmp_path, monkeypatch):
        path = coco[1]()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        path.with_name("annotations_masks").touch()
        assert Path(read_coco(path)[0]["label"]).is_relative_to(tmp_path / "cache/topolora_monai")

    @pytest.mark.parametrize(
        ("where", "value", "message", "details"),
        [
            (("annotations", 0, "segmentation"), [[1, 1, 5, 5]], "fewer than 3 points", "annotation 100 of image 1"),
            (("annotations", 0, "segmentation"), [[1, 1, 5, 5, 1]], "not a list of coordinates", "annotation 100"),
            (("annotations", 0, "segmentation"), [[1, 1, 5, 5, None, 1]], "points that are none", "annotation 100"),
            (("annotations", 0, "segmentation"), [[1, 1, 5, 5, float("inf"), 1]], "points that are none", "annotation"),
            (("annotations", 0, "segmentation"), [], "no outline", "annotation 100 of image 1"),
            (("annotations", 2, "segmentation", "size"), [WIDTH, HEIGHT], "do not fit", "annotation 102 of image 2"),
            (("annotations", 2, "segmentation", "counts"), [5, 5], "damaged", "annotation 102 of image 2"),
            (("annotations", 3, "segmentation", "counts"), "5P", "damaged", "break off"),
            (("annotations", 1, "image_id"), 77, "unknown image", "annotation 101 of image 77"),
            (("annotations", 1, "image_id"), [1], "unknown image", "annotation 101"),
            (("annotations", 1, "category_id"), 30, "unknown category", "10 (vessel), 20 (lesion)"),
            (("annotations", 1, "category_id"), None, "unknown category", "annotation 101 of image 1"),
            (("annotations",), {}, "no list of annotations", ""),
            (("categories",), [], "no categories", ""),
            (("images",), [], "no images", ""),
            (("images", 0, "id"), 1, "no id of its own", "a.png"),
            (("images", 0, "file_name"), "z.png", "image file not found", "image 4"),
            (("images", 0, "file_name"), None, "no file name", "image 4"),
            (("images", 0, "height"), 25, "another size", "30x25"),
        ],
    )
    def test_defects_are_named(self, coco, where, value, message, details):
        content, write = coco
        changed = copy.deepcopy(content)
        inner = changed
        for key in where[:-1]:
            inner = inner[key]
        inner[where[-1]] = value
        path = write(changed)
        with pytest.raises(DataError, match=message) as error:
            read_coco(path)
        assert str(path) in str(error.value)
        assert details in str(error.value)

    def test_not_coco(self, tmp_path):
        (tmp_path / "a.json").write_text('{"images": []}')
        with pytest.raises(DataError, match="not a COCO file"):
            read_coco(tmp_path / "a.json")
        (tmp_path / "a.json").write_text("[" * 100_000)
        with pytest.raises(DataError, match="not valid JSON"):
            read_coco(tmp_path / "a.json")


@pytest.fixture
def labelme(write_image, tmp_path):
    """Write an image with its labelme file; shapes are (label, shape_type, points) or dictionaries."""

    def write(name: str, *shapes, **changes) -> Path:
        write_image(f"set/{name}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        rows = [
            s if isinstance(s, dict) else dict(zip(("label", "shape_type", "points"), s, strict=True)) for s in shapes
        ]
        content = {
            "version": "5.4.1",
            "shapes": rows,
            "imagePath": f"{name}.png",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
            **changes,
        }
        (tmp_path / f"set/{name}.json").write_text(json.dumps(content))
        return tmp_path / "set"

    return write


def png(mask) -> str:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


class TestLabelme:
    def test_shapes(self, labelme):
        labelme("polygon", ("v", "polygon", [[2, 3], [12, 3], [12, 13], [2, 13]]))
        labelme("old", {"label": "v", "points": [[2, 3], [12, 3], [12, 13], [2, 13]]})
        labelme("rectangle", ("v", "rectangle", [[12, 13], [2, 3]]))
        labelme("circle", ("v", "circle", [[15, 12], [15, 20]]))
        labelme("line", ("v", "line", [[5, 10], [25, 10]]))
        labelme("strip", ("v", "linestrip", [[5, 10], [25, 10], [25, 20]]))
        labelme(
            "mask", {"label": "v", "shape_type": "mask", "points": [[4, 2], [13, 8]], "mask": png(blob()[5:12, 8:18])}
        )
        folder = labelme("nothing")
        items = read_labelme(folder, line_width=4)
        check_items(items)
        masks = {item["name"]: pixels(item) > 0 for item in items}
        square = np.zeros((HEIGHT, WIDTH), bool)
        square[3:13, 2:12] = True
        for name in ("polygon", "old", "rectangle"):
            assert np.array_equal(masks[name], square), name
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        assert np.array_equal(masks["circle"], np.hypot(rows - 11.5, columns - 14.5) < 8)
        assert masks["line"][8:12, 5:25].all()
        assert masks["line"].sum() == 80 + 12  # and its ends
        assert masks["strip"][12:20, 23:27].all()
        assert np.array_equal(masks["mask"][2:9, 4:14], blob()[5:12, 8:18])
        assert masks["mask"].sum() == blob()[5:12, 8:18].sum()
        assert not masks["nothing"].any()

    def test_labels(self, labelme):
        folder = labelme(
            "a",
            ("vein", "rectangle", [[0, 0], [10, 10]]),
            ("artery", "rectangle", [[5, 0], [15, 10]]),
            ("_background_", "rectangle", [[0, 0], [15, 2]]),
        )
        assert (pixels(read_labelme(folder)[0]) > 0).sum() == 150 - 30
        assert (pixels(read_labelme(folder, ["vein"])[0]) > 0).sum() == 100 - 20
        with pytest.raises(ConfigError, match="did you mean vein"):
            read_labelme(folder, ["vien"])

    def test_line_width_is_part_of_what_masks_depend_on(self, labelme):
        folder = labelme("a", ("v", "line", [[5, 10], [25, 10]]))
        assert [(pixels(read_labelme(folder, line_width=width)[0])[:, 15] > 0).sum() for width in (2, 6)] == [2, 6]
        with pytest.raises(DataError, match="line has no width") as error:
            read_labelme(folder)
        assert "a.json" in str(error.value)

    def test_edited_file_is_drawn_again(self, labelme):
        labelme("b")
        folder = labelme("a", ("v", "rectangle", [[0, 0], [10, 10]]))
        assert (pixels(read_labelme(folder)[0]) > 0).sum() == 100
        labelme("a", ("v", "rectangle", [[0, 0], [10, 11]]))
        assert (pixels(read_labelme(folder)[0]) > 0).sum() == 110

    def test_paths_of_windows(self, labelme, tmp_path):
        labelme("a", imagePath="..\\photographs\\a.png")
        (tmp_path / "photographs").mkdir()
        (tmp_path / "set/a.png").rename(tmp_path / "photographs/a.png")
        assert Path(read_labelme(tmp_path / "set")[0]["image"]).resolve() == tmp_path / "photographs/a.png"

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            (("v", "point", [[1, 1]]), "cannot be drawn"),
            (("v", "polygon", [[1, 1], [2, 2]]), "polygon has fewer than 3 points"),
            (("v", "rectangle", [[1, 1]]), "rectangle has fewer than 2 points"),
            (("v", "polygon", [[1, 1], [2, 2], [3]]), "points that are none"),
            (("v", "polygon", None), "points that are none"),
            ({"label": "v", "shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "AAAA"}, "mask is damaged"),
            ({"label": "v", "shape_type": "mask", "points": [[0, 0], [1, 1]]}, "mask is damaged"),
            (
                {
                    "label": "v",
                    "shape_type": "mask",
                    "points": [[25, 0], [34, 9]],
                    "mask": png(np.ones((10, 10), bool)),
                },
                "does not fit the image",
            ),
        ],
    )
    def test_defects_of_shapes_are_named(self, labelme, shape, message):
        folder = labelme("a", ("v", "rectangle", [[0, 0], [1, 1]]), shape)
        with pytest.raises(DataError, match=message) as error:
            read_labelme(folder)
        assert "shape 1, labelled v" in str(error.value)
        assert "a.json" in str(error.value)

    def test_defects_of_files_are_named(self, labelme, write_image, tmp_path):
        folder = labelme("a")
        labelme("b", imagePath="c.png")
        with pytest.raises(DataError, match="image file not found"):
            read_labelme(folder)
        labelme("b", imagePath="a.png")
        with pytest.raises(DataError, match=r"several files annotate one image: a\.png"):
            read_labelme(folder)
        labelme("b", imageWidth=WIDTH + 1)
        with pytest.raises(DataError, match="another size") as error:
            read_labelme(folder)
        assert "b.json" in str(error.value)
        labelme("b", shapes=[{"points": []}])
        with pytest.raises(DataError, match="no list of labelled shapes"):
            read_labelme(folder)
        labelme("b")
        write_image("set/later.png", np.zeros((4, 4), np.uint8))
        with pytest.raises(DataError, match=r"image without labelme file: later\.png"):
            read_labelme(folder)
        (tmp_path / "set/later.json").write_text("{}")
        with pytest.raises(DataError, match=r"not a labelme file.*later"):
            read_labelme(folder)


def lying(path):
    """Store an upright picture with orientation 6."""
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(path) as image:
        stored = image.transpose(Image.Transpose.ROTATE_90)
    stored.save(path, exif=exif)


class TestOrientation:
    def test_shapes_lie_on_the_upright_picture(self, labelme):
        folder = labelme("a", ("vessel", "rectangle", [[2, 3], [12, 13]]))
        lying(folder / "a.png")
        (item,) = read_labelme(folder)
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[3:13, 2:12] = 255
        assert np.array_equal(pixels(item), expected)

    def test_size_of_the_picture_on_its_side_is_refused_by_name(self, coco, tmp_path):
        path = coco[1]()
        lying(tmp_path / "set/images/a.png")
        assert pixels(read_coco(path)[0]).shape == (HEIGHT, WIDTH)
        changed = json.loads(path.read_text())
        for entry in changed["images"]:
            if entry["file_name"] == "a.png":
                entry["height"], entry["width"] = WIDTH, HEIGHT
        with pytest.raises(DataError, match="another size than its annotation says") as error:
            read_coco(coco[1](changed))
        assert "orientation tag 6" in str(error.value)
