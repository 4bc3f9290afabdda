"""Images that were trained on are not scored, whatever they are called by then."""

import logging

import pytest

from topolora_monai.data import check_unseen, record_split
from topolora_monai.data.split_record import SPLIT_FILE, split_changes
from topolora_monai.engines import write_json
from topolora_monai.errors import DataError


class Data:
    def __init__(self, root, **described):
        self.root = root
        self.described = described

    def describe(self):
        return self.described


@pytest.fixture
def item(tmp_path):
    def make(name, content=None, folder="scans"):
        path = tmp_path / folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content or name)
        return {"name": name, "image": str(path)}

    return make


@pytest.fixture
def adapter(tmp_path, item):
    """Of a run trained on a and b, judged by v and tested on t."""
    record = record_split(tmp_path / "scans", training=[item("a"), item("b")], validation=[item("v")], test=[item("t")])
    write_json(record, tmp_path / SPLIT_FILE)
    return tmp_path / "adapter.safetensors"


def test_what_was_held_out_is_scored(adapter, tmp_path, item, caplog):
    check_unseen(adapter, Data(tmp_path / "scans"), [item("v"), item("t")])
    assert not caplog.messages


def test_added_and_changed_test_images_are_said(adapter, tmp_path, item, caplog):
    check_unseen(adapter, Data(tmp_path / "scans"), [item("v"), item("t", "corrected"), item("new")])
    assert caplog.messages == ["other content since training: t", "new since training: new"]


@pytest.mark.parametrize(("name", "content"), [("a", None), ("a", "saved anew"), ("renamed", "b")])
def test_trained_images_are_refused(adapter, tmp_path, item, name, content):
    with pytest.raises(DataError, match="trained on") as error:
        check_unseen(adapter, Data(tmp_path / "scans"), [item("t"), item(name, content)])
    assert f"found:    {name}" in str(error.value)
    assert ("(as b)" in str(error.value)) == (name == "renamed")
    assert "t" not in str(error.value).split("found:")[1].splitlines()[0].split()


def test_moved_as_a_whole_names_still_count(adapter, tmp_path, item):
    with pytest.raises(DataError, match="trained on"):
        check_unseen(adapter, Data(tmp_path / "b"), [item("t", folder="b"), item("a", "saved anew", folder="b")])


def test_other_data_may_have_the_same_names(adapter, tmp_path, item, caplog):
    others = [item(name, f"{name} elsewhere", folder="other") for name in "abvt"]
    check_unseen(adapter, Data(tmp_path / "other"), others)
    assert not caplog.messages
    with pytest.raises(DataError, match="trained on"):
        check_unseen(adapter, Data(tmp_path / "other"), [*others, item("x", "a", folder="other")])


def test_a_published_split_that_has_an_image_twice_is_scored(adapter, tmp_path, item, caplog):
    record = record_split(
        tmp_path / "scans", training=[item("a"), item("b")], validation=[item("v")], test=[item("t", "a")]
    )
    write_json(record, tmp_path / SPLIT_FILE)
    check_unseen(adapter, Data(tmp_path / "scans", split_scheme="official"), [item("t", "a")])
    assert "published split has it twice" in caplog.text
    for data, tested in ((Data(tmp_path / "scans"), "t"), (Data(tmp_path / "scans", split_scheme="official"), "u")):
        with pytest.raises(DataError, match="trained on"):
            check_unseen(adapter, data, [item(tested, "a")])


def test_no_record(tmp_path, item, caplog):
    with caplog.at_level(logging.WARNING):
        check_unseen(tmp_path / "adapter.safetensors", Data(tmp_path), [item("a")])
    assert "not checked" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"root": 1}', '{"root": "/", "training": {"a": {}}}'])
def test_damaged_record(adapter, tmp_path, item, content):
    (tmp_path / SPLIT_FILE).write_text(content)
    with pytest.raises(DataError, match=r"damaged.*split\.json"):
        check_unseen(adapter, Data(tmp_path), [item("t")])


def test_content_is_what_counts_for_files_and_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.dcm").write_text(str(number))

    def record(name):
        return record_split("/", training=[{"name": "scan", "image": str(tmp_path / name)}])

    first = record("a")
    assert record("b") == first
    (tmp_path / "a/1.dcm").write_text("changed")
    assert split_changes(first, record("a")) == ["scan (training): other image"]
    with pytest.raises(DataError, match="cannot be read"):
        record("missing")
