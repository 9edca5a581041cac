"""A real server and a real browser for the tests of pages.

Charts are read through Vega's own view, not through pixels. ``KDPIPE_APP_PYTHON`` names another
interpreter for the server, such as one with ``requirements.txt`` alone.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from browser import find_chromium
from synthetic import MANY, Recipe, write_toy_study

ROOT = Path(__file__).resolve().parent.parent
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
CHART = '[data-testid="stVegaLiteChart"]'

# Streamlit keeps the Vega view in a React ref only; this looks for it upwards from the chart's element.
FIND_VIEW = """
function viewOf(element) {
  const isView = (v) => v && typeof v.addSignalListener === "function" && typeof v.scenegraph === "function";
  let fibre = element[Object.keys(element).find((key) => key.startsWith("__reactFiber"))];
  for (; fibre; fibre = fibre.return)
    for (let hook = fibre.memoizedState; hook && typeof hook === "object"; hook = hook.next) {
      const held = hook.memoizedState;
      if (isView(held)) return held;
      if (held && typeof held === "object" && isView(held.current)) return held.current;
    }
  return null;
}
function items(view, wanted) {
  const found = [];
  const walk = (item, x, y) => {
    if (item.marktype) {
      if (item.marktype !== "group" && item.name && wanted(item))
        for (const dot of item.items)
          found.push({
            mark: item.name, x: x + dot.x, y: y + dot.y, datum: dot.datum, fill: dot.fill, opacity: dot.opacity,
          });
      for (const child of item.items || []) if (child.items) walk(child, x + (child.x || 0), y + (child.y || 0));
    } else for (const child of item.items || []) walk(child, x, y);
  };
  walk(view.scenegraph().root, 0, 0);
  return found;
}
"""
DOTS = (
    "(element) => {"
    + FIND_VIEW
    + """
  const view = viewOf(element);
  if (!view) return null;
  const box = element.querySelector("canvas").getBoundingClientRect();
  const [left, top] = view.origin();
  return items(view, (mark) => mark.marktype === "symbol").map(({ mark, x, y, datum, fill, opacity }) => ({
    mark, fill, opacity, sample: datum && datum.sample_id, label: datum && datum.class_name,
    x: box.x + left + x, y: box.y + top + y,
  }));
}"""
)

SERVERS: dict[str, int] = {}
PATIENCE = 90_000  # milliseconds, on a machine that does much else; no test measures time


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(artifacts: Path, script: Path = ROOT / "Home.py") -> Iterator[tuple[str, int]]:
    """A Streamlit server of its own over ``artifacts``: its address and process id."""
    port = free_port()
    python = os.environ.get("KDPIPE_APP_PYTHON", sys.executable)
    command = [python, "-m", "streamlit", "run", str(script), "--server.headless=true"]
    command += ["--server.fileWatcherType=none", f"--server.port={port}", "--server.address=127.0.0.1"]
    environment = {**os.environ, "KDPIPE_ARTIFACTS": str(artifacts)}
    environment.pop("KDPIPE_CHECK_CHARTS", None)  # as visitors have it
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(server, url, log)
            yield url, server.pid
        finally:
            server.terminate()
            server.wait(timeout=20)


def healthy(server: subprocess.Popen[Any], url: str) -> str:
    """What the server's health check answers, once it does; RuntimeError with the last failure after a minute."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # to this machine no proxy leads
    last: OSError | None = None
    for _ in range(240):
        try:
            with direct.open(f"{url}/_stcore/health", timeout=1) as reply:
                return str(reply.read().decode())
        except OSError as error:
            last = error
            if server.poll() is not None:
                break
            time.sleep(0.25)
    raise RuntimeError(f"the server did not start within a minute ({last!r})")


def _wait(server: subprocess.Popen[bytes], url: str, log: IO[str]) -> None:
    try:
        healthy(server, url)
    except RuntimeError as error:
        log.seek(0)
        raise RuntimeError(f"{error}:\n{log.read()}") from None


def resident_megabytes(pid: int) -> float | None:
    """Memory of a process that is in use now; None where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found.group(1)) / 1024 if found else None


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own over made-up studies."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    write_toy_study(artifacts, Recipe(name="another", samples=40, seeds=(0,), fractions=(0.1,)))
    write_toy_study(artifacts, Recipe(samples=100, seeds=(0, 1), fractions=(0.1,)))
    write_toy_study(artifacts, MANY)
    with served(artifacts) as (url, pid):
        SERVERS[url] = pid
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api") if not os.environ.get("CI") else __import__(
        "playwright.sync_api", fromlist=["sync_playwright"]
    )  # fmt: skip
    chromium = find_chromium()
    if chromium is None:
        reason = "there is no Chromium, so nothing is known about the pages in a browser: run tests/browser.py"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield started
        started.close()


class Visitor:
    """A browser tab that remembers every complaint and every request that leaves the host."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.page.set_default_timeout(PATIENCE)
        self.address = address
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        # Streamlit looks for its endpoints below the page's path first; that 404 is its own.
        if message.type == "error" and "/_stcore/" not in message.location.get("url", ""):
            self.complaints.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, self.address.replace("http", "ws"), "data:", "blob:")):
            self.complaints.append(f"request off the host: {request.url}")

    def open(self, path: str) -> Any:
        self.page.goto(self.address + path)
        self.page.wait_for_selector(f"{CHART} canvas", timeout=PATIENCE)
        self.settle()
        return self.page

    def settle(self) -> None:
        self.page.wait_for_timeout(150)
        self.page.wait_for_selector(IDLE, timeout=PATIENCE)

    def dots(self, chart_number: int = 0) -> list[dict[str, Any]]:
        """Every symbol in the page's n-th chart: mark name, colour, sample, place on the screen."""
        chart = self.page.locator(CHART).nth(chart_number)
        chart.locator("canvas").wait_for(timeout=PATIENCE)
        for _ in range(60):
            if found := chart.evaluate(DOTS):
                return list(found)
            self.page.wait_for_timeout(100)
        raise AssertionError(f"chart {chart_number} draws nothing")

    def panel(self, number: int, chart_number: int = 0) -> list[dict[str, Any]]:
        return [dot for dot in self.dots(chart_number) if dot["mark"] == f"panel_{number}_marks"]


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, address)
    yield visitor
    exceptions = visitor.page.locator('[data-testid="stException"]').count()
    visitor.page.close()
    assert not exceptions
    assert not visitor.complaints
