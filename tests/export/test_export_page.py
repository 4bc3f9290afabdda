"""Commands and code that docs/export.md prints."""

import re
import shlex

from tests.conftest import ROOT
from tests.export.helpers import write_adapter
from topolora_monai.cli import main
from topolora_monai.export import EXPORT_FORMATS
from topolora_monai.networks import NETWORK_NAMES

PAGE = (ROOT / "docs/export.md").read_text()


def test_commands_and_code_run_as_printed(tmp_path, monkeypatch, capsys):
    write_adapter(tmp_path / "adapter.safetensors", "full", "little_wnet")
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line) for line in re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL).group(1).splitlines()]
    assert len(commands) == 4
    for words in commands:
        assert words[0] == "topolora"
        assert main(words[1:]) == 0, capsys.readouterr()
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1), names)
    assert names["thresholds"] == [0.4] * 3


def test_formats_and_networks_are_those_of_the_package():
    assert dict(re.findall(r"^\| `(\w+)` \| `(\.\w+)` \|", PAGE, re.MULTILINE)) == EXPORT_FORMATS
    table = PAGE.partition("## What can be exported")[2].partition("|---|---|---|---|")[2]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(NETWORK_NAMES)
