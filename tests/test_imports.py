"""Every module imports where the system has no POSIX modules, as on Windows."""

from tests.processes import run_code

SCRIPT = """
import importlib, pkgutil, sys
blocked = ("resource", "fcntl", "termios")
for name in [name for name in sys.modules if name.partition(".")[0] == "topolora_monai"]:
    del sys.modules[name]  # other libraries may have been imported before
sys.modules.update(dict.fromkeys(blocked))
import topolora_monai
seen = 0
for module in pkgutil.walk_packages(topolora_monai.__path__, "topolora_monai.", onerror=lambda name: None):
    if module.name.startswith(("topolora_monai.label_app", "topolora_monai.cli.__main__")):
        continue
    try:
        importlib.import_module(module.name)
        seen += 1
    except ModuleNotFoundError as error:  # an extra may be missing
        if error.name in blocked:
            print(module.name, "needs", error.name)
print(seen)
"""


def test_without_posix_modules():
    done = run_code(SCRIPT)
    assert done.returncode == 0, done.stderr
    *needing, seen = done.stdout.splitlines()
    assert not needing
    assert int(seen) > 100
