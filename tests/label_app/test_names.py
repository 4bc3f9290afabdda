"""Names that could lead out of a folder are refused, in this module without a server."""

import pytest

from topolora_monai.label_app.names import RESULT_SUFFIXES, RefusedNameError, checked_name, checked_suffix, inside

HARMFUL = [
    "..", ".", "../secret", "..\\secret", "../../../../etc/passwd", "/etc/passwd", "//server/share",
    "\\\\server\\share",
    "C:\\secret", "C:secret", "c:/secret", "a/../../secret", "a/b", "a\\b", "%2e%2e%2fsecret", "%2e%2e/secret",
    "..%2fsecret", "..%5csecret", "%252e%252e%252fsecret", "..%c0%afsecret", "a%00.png", "a\0.png", "a\n", "a\x7f",
    ".hidden", ".topolora", "\uff0e\uff0e\uff0fsecret", "\u2025\uff0fsecret", "a\u2044b\uff0fc", "file:secret",
    "~/secret/a", "secret.", "secret ", "", "a" * 300, "a|b", "a?b", "a*b", "file:///etc/passwd", "..;/secret", "..;",
    "....//secret", "/./secret", "\u2024\u2024\u2215secret", "a\u2215b", "a\u2044b", "a\u2216b", "\u2024\u2024",
    "\\\\?\\C:\\secret", "%2fetc%2fpasswd", "%5c%5cserver", "%u002e%u002e%u2215x", "../" * 60 + "etc/passwd",
    "im0.png::$DATA",
]  # fmt: skip
HARMLESS = ["21_training", "im 1", "a..b", "ä", "1.2.840.113619.2.1", "IDRiD_01 (2)", "x" * 200, "100%", "-rf"]


@pytest.mark.parametrize("name", HARMFUL)
def test_refused(name):
    with pytest.raises(RefusedNameError):
        checked_name(name, "image")


@pytest.mark.parametrize("name", HARMLESS)
def test_taken(name):
    assert checked_name(name, "image") == name


@pytest.mark.parametrize("name", ["a.exe", "a.png/../../x", "a", ".png\0", "a.png\0.sh", "a.py"])
def test_other_files_are_refused(name):
    with pytest.raises(RefusedNameError):
        checked_suffix(name, RESULT_SUFFIXES, "label")


def test_links_are_followed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in/link").symlink_to(tmp_path / "secret")
    (tmp_path / "in/file").write_text("x")
    assert inside(tmp_path / "in", tmp_path / "in/file")
    assert not inside(tmp_path / "in", tmp_path / "in/link")
