"""The real server in a real browser: what is drawn, hovered, clicked and linked.

Charts are read through Vega's own view, not through pixels. ``KDPIPE_APP_PYTHON`` names another
interpreter for the server, such as one with ``requirements.txt`` alone.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
          found.push({ mark: item.name, x: x + dot.x, y: y + dot.y, datum: dot.datum, fill: dot.fill });
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
  return items(view, (mark) => mark.marktype === "symbol").map(({ mark, x, y, datum, fill }) => ({
    mark, fill, sample: datum && datum.sample_id, label: datum && datum.class_name,
    x: box.x + left + x, y: box.y + top + y,
  }));
}"""
)

pytestmark = pytest.mark.browser
MEMORY = 500  # MB; a free hosted demo has little more
_servers: dict[str, int] = {}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own over two made-up studies."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    write_toy_study(artifacts, Recipe(name="another", samples=40, seeds=(0,), fractions=(0.1,)))
    write_toy_study(artifacts, Recipe(samples=100, seeds=(0, 1), fractions=(0.1,)))
    write_toy_study(artifacts, MANY)
    port = _free_port()
    python = os.environ.get("KDPIPE_APP_PYTHON", sys.executable)
    command = [python, "-m", "streamlit", "run", "Home.py", "--server.headless=true", "--server.fileWatcherType=none"]
    command += [f"--server.port={port}", "--server.address=127.0.0.1"]
    log = (artifacts.parent / "server.log").open("w+")
    environment = {**os.environ, "KDPIPE_ARTIFACTS": str(artifacts)}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, Path(log.name).read_text()
                time.sleep(0.5)
        else:
            pytest.fail("the server did not start within a minute:\n" + Path(log.name).read_text())
        _servers[url] = server.pid
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()


@pytest.fixture(scope="module")
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
        self.page.wait_for_selector(f"{CHART} canvas", timeout=30_000)
        self.settle()
        return self.page

    def settle(self) -> None:
        self.page.wait_for_timeout(150)
        self.page.wait_for_selector(IDLE, timeout=30_000)

    def dots(self, chart_number: int = 0) -> list[dict[str, Any]]:
        """Every symbol in the page's n-th chart: mark name, colour, sample, place on the screen."""
        chart = self.page.locator(CHART).nth(chart_number)
        chart.locator("canvas").wait_for(timeout=30_000)
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


def test_home_draws_sixteen_panels_of_all_images(visitor: Visitor) -> None:
    visitor.open("/?study=toy")
    dots = visitor.dots(2)
    panels = {dot["mark"] for dot in dots}
    assert len(panels) == 16
    assert len(visitor.panel(15, 2)) == 100
    assert len({dot["fill"] for dot in dots}) == 10


def test_the_study_stays_chosen_from_page_to_page(visitor: Visitor) -> None:
    page = visitor.open("/?study=toy")
    page.get_by_role("link", name="Measures: the same in numbers").click()
    page.wait_for_url(re.compile(r"/Measures"))
    page.locator(".st-key-measure").wait_for(timeout=30_000)
    visitor.settle()
    assert page.locator(".st-key-study input").input_value() == "toy"
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Embeddings").click()
    page.wait_for_url(re.compile(r"/Embeddings"))
    assert len(visitor.panel(0)) == 100
    assert "study=toy" in page.url


def test_a_comparison_is_picked_and_stays_in_the_address(visitor: Visitor) -> None:
    page = visitor.open("/Evidence?study=toy&cell=rkd, 10%25 of labels&endpoint=kNN accuracy (channel means)")
    assert page.locator(".st-key-cell input").input_value() == "rkd, 10% of labels"
    page.locator(f"{CHART} canvas").first.wait_for(timeout=30_000)
    page.locator(".st-key-endpoint").get_by_text("silhouette (projection)").click()
    visitor.settle()
    assert "endpoint" not in page.url and "cell=rkd" in page.url  # a default stays out of the address


def test_hovering_a_dot_shows_its_image(visitor: Visitor) -> None:
    page = visitor.open("/Embeddings?study=toy&networks=teacher")
    chart = page.locator(f".st-key-maps_chart {CHART}")
    chart.scroll_into_view_if_needed()
    dot = visitor.panel(1)[0]
    page.mouse.move(dot["x"] - 30, dot["y"])
    page.mouse.move(dot["x"], dot["y"], steps=4)
    image = page.locator("#vg-tooltip-element img")
    image.wait_for(timeout=5_000)
    assert image.get_attribute("src").startswith("data:image/webp;base64,")
    assert image.evaluate("image => image.naturalWidth") == 8
    assert image.bounding_box()["width"] >= 90, "small images are enlarged"


def test_a_click_follows_one_image_through_all_panels(visitor: Visitor) -> None:
    page = visitor.open("/Embeddings?study=toy&networks=teacher")
    page.locator(f".st-key-maps_chart {CHART}").scroll_into_view_if_needed()
    dots = visitor.panel(3)
    lonely = max(
        dots, key=lambda dot: min(abs(dot["x"] - o["x"]) + abs(dot["y"] - o["y"]) for o in dots if o is not dot)
    )
    page.mouse.click(lonely["x"], lonely["y"])
    page.locator(".kd-strip figure.large").wait_for(timeout=15_000)
    visitor.settle()
    rings = [dot for dot in visitor.dots() if not dot["mark"].startswith("panel_")]
    assert [ring["sample"] for ring in rings] == [lonely["sample"]] * 4
    assert f"sample={lonely['sample']}" in page.url
    cells = page.locator(".kd-strip .kd-heat .kd-cells span")
    assert cells.count() == 16 and cells.first.bounding_box()["width"] > 20
    assert page.locator(".kd-strip img").count() == 12
    page.reload()
    page.locator(".kd-strip figure.large").wait_for(timeout=30_000)
    assert f"image {lonely['sample']}:" in page.locator(".kd-strip figure.large").inner_text()


def test_filtering_by_class_draws_that_class_alone(visitor: Visitor) -> None:
    page = visitor.open("/Embeddings?study=toy")
    page.locator(".st-key-classes input").click()
    page.get_by_role("option", name="3", exact=True).click()
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"classes=3"))
    for _ in range(100):
        if {dot["label"] for dot in visitor.panel(0)} == {"3"}:
            break
        page.wait_for_timeout(100)
    dots = visitor.panel(0)
    assert {dot["label"] for dot in dots} == {"3"} and len(dots) == 10


def test_measures_draw_a_curve_for_each_method(visitor: Visitor) -> None:
    page = visitor.open("/Measures?study=toy")
    fills = {dot["fill"] for dot in visitor.dots()}
    assert len(fills) >= 5  # teacher, plain, control, two methods
    page.get_by_text("Training history").click()
    assert page.locator(".st-key-quantity").is_visible()
    with page.expect_download() as download:
        page.locator(".st-key-csv-toy-silhouette-projection button").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("series,role,label,seed") and len(lines) == 1 + 9 * 4


def test_every_method_has_a_row_in_the_order_of_gains(visitor: Visitor) -> None:
    visitor.open("/?study=many")
    dots = [dot for dot in visitor.dots(1) if dot["y"]]
    heights = sorted({round(dot["y"]) for dot in dots})
    assert len(heights) >= 35 and min(b - a for a, b in itertools.pairwise(heights)) >= 16


@pytest.mark.parametrize(
    "path",
    [
        "/?study=toy",
        "/Embeddings?study=toy",
        "/Measures?study=toy",
        "/Inside_layers?study=toy",
        "/Evidence?study=toy",
        "/Evidence?study=many",
        "/?study=many",
        "/Measures?study=many",
    ],
)
def test_nothing_is_cut_off_in_a_small_window(visitor: Visitor, path: str) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": 900})
    page = visitor.open(path)
    page.wait_for_timeout(500)
    assert page.get_by_test_id("stSidebar").bounding_box()["width"] > 200, "the sidebar is open"
    inside = "block => block.getBoundingClientRect().right - parseFloat(getComputedStyle(block).paddingRight)"
    edge = page.get_by_test_id("stMainBlockContainer").evaluate(inside)
    for canvas in page.locator(f"{CHART} canvas").all():
        if canvas.is_visible():
            drawn = canvas.bounding_box()
            assert drawn["x"] + drawn["width"] <= edge + 1
    for table in page.get_by_test_id("stDataFrame").all():
        if table.is_visible():
            assert table.bounding_box()["width"] > 600, "a table has the whole width"
    cut = "element => [element, ...element.querySelectorAll('*')].some(e => e.scrollWidth > e.clientWidth + 1)"
    for part in ("stMetricLabel", "stMetricDelta"):
        for element in page.get_by_test_id(part).all():
            assert not element.evaluate(cut), element.inner_text()


def test_the_dark_theme_draws_too(browser: Any, address: str) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(address + "/?study=toy")
    page.wait_for_selector(f"{CHART} canvas", timeout=30_000)
    colour = page.locator('[data-testid="stApp"]').evaluate("element => getComputedStyle(element).backgroundColor")
    context.close()
    assert max(int(channel) for channel in re.findall(r"\d+", colour)[:3]) < 60


def test_the_server_stays_small_after_every_page(visitor: Visitor, address: str) -> None:
    for path in (
        "/?study=toy",
        "/Embeddings?study=toy",
        "/Inside_layers?study=toy",
        "/Evidence?study=toy",
        "/Measures?study=toy",
        "/Measures?study=another",
    ):
        visitor.open(path)
    status = Path(f"/proc/{_servers[address]}/status")
    if not status.exists():
        pytest.skip("resident memory is read from /proc")
    resident = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    assert resident is not None
    assert int(resident.group(1)) / 1024 < MEMORY
