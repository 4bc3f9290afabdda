"""Commands of an installed package one after the other; ``test_installed.py`` starts it outside of the source tree.

Where processes can be forked, each is a fork of this one, which has imported the libraries once for all of them.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def run(words: list[str]) -> int:
    """Exit status of ``topolora WORDS``, of ``python -m monai.bundle WORDS`` or of ``python -c CODE``."""
    program, *arguments = words
    try:
        if program == "topolora":
            from topolora_monai.cli import main

            sys.argv = [program, *arguments]
            return main(arguments)
        if program == "monai.bundle":
            sys.argv = [program, *arguments]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(arguments[0], {"__name__": "__main__"})
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def forked(words: list[str]) -> dict:
    """What it printed, both streams together, and its exit status."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os.dup2(write, 1)
        os.dup2(write, 2)
        status = run(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    os.close(write)
    with os.fdopen(read, errors="replace") as stream:
        printed = stream.read()
    return {"words": words, "printed": printed, "status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def in_this_process(words: list[str]) -> dict:
    """The same where nothing can be forked."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = run(words)
    return {"words": words, "printed": printed.getvalue(), "status": status}


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text())
    import fire  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    import topolora_monai.engines
    import topolora_monai.release
    import topolora_monai.reports

    results = []
    for words in commands:
        results.append((forked if hasattr(os, "fork") else in_this_process)(words))
        if results[-1]["status"]:
            break
    Path(sys.argv[1]).write_text(json.dumps({"file": topolora_monai.__file__, "results": results}))
