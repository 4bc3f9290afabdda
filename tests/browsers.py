"""Chromium for tests, where there is one."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = os.environ.get("TOPOLORA_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--disable-dev-shm-usage"]  # fmt: skip


@contextmanager
def chromium(install):
    """A browser; skips the test without one, telling how to ``install`` what drives it."""
    playwright = pytest.importorskip("playwright.sync_api", reason=f"playwright is not installed: {install}")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install the package chromium, or name one by TOPOLORA_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
