"""Find a Chromium for the browser tests; run as a script, install one if there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """Path of a Chromium: ``KDPIPE_CHROMIUM``, the system's, or the one Playwright installed."""
    for candidate in (os.environ.get("KDPIPE_CHROMIUM"), *map(shutil.which, NAMES)):
        if candidate and os.path.exists(candidate):
            return candidate
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def install() -> None:
    """Debian's package where we may install it, or else Playwright's own download."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


if __name__ == "__main__":
    if find_chromium() is None:
        install()
    found = find_chromium()
    if found is None:
        sys.exit("no Chromium could be found or installed; set KDPIPE_CHROMIUM to one")
    print(f"browser tests use {found}")
