"""The real server in a real browser: what is drawn, hovered, clicked and linked. Charts are read through Vega."""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from visits import CHART, ROOT, SERVERS, Visitor, resident_megabytes

pytestmark = pytest.mark.browser
MEMORY = 350  # MB; a free hosted demo has 690 for everything
NAMES = ["", *(path.stem.split("_", 1)[1] for path in sorted((ROOT / "pages").glob("*.py")))]


def test_the_study_stays_chosen_from_page_to_page(visitor: Visitor) -> None:
    page = visitor.open("/?study=toy")
    page.get_by_role("link", name="Measures: layer by layer").click()
    page.wait_for_url(re.compile(r"/Measures"))
    page.locator(".st-key-measure").wait_for()
    visitor.settle()
    assert page.locator(".st-key-study input").input_value() == "toy"
    page.get_by_test_id("stSidebarNav").get_by_role("link", name="Layers").click()
    page.wait_for_url(re.compile(r"/Layers"))
    visitor.settle()
    assert len(visitor.panel(0)) == 100
    assert "study=toy" in page.url
    for _ in range(3):  # the page of layers was entered without its study in the address, and then with it
        if "/Measures" not in page.url:
            page.go_back()
            page.wait_for_timeout(1000)
            visitor.settle()
    assert "/Measures" in page.url
    visitor.settle()
    assert page.locator(".st-key-study input").input_value() == "toy"


def test_hovering_a_dot_shows_its_image(visitor: Visitor) -> None:
    page = visitor.open("/Layers?study=toy&networks=teacher")
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
    page = visitor.open("/Layers?study=toy&networks=teacher")
    page.locator(f".st-key-maps_chart {CHART}").scroll_into_view_if_needed()
    dots = visitor.panel(3)
    lonely = max(
        dots, key=lambda dot: min(abs(dot["x"] - o["x"]) + abs(dot["y"] - o["y"]) for o in dots if o is not dot)
    )
    page.mouse.click(lonely["x"], lonely["y"])
    page.locator(".kd-strip figure.large").wait_for(timeout=15_000)
    visitor.settle()
    rings = [dot for dot in visitor.dots() if dot["sample"] is not None and not dot["mark"].startswith("panel_")]
    assert [ring["sample"] for ring in rings] == [lonely["sample"]] * 4
    assert f"follow={lonely['sample']}" in page.url
    assert page.locator(".kd-strip img").count() == 11
    page.reload()
    page.locator(".kd-strip figure.large").wait_for()
    assert f"image {lonely['sample']}:" in page.locator(".kd-strip figure.large").inner_text()


def fits(page: Any) -> None:
    """Charts end where the page does, tables have its width, and no words are cut."""
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


def accessible(page: Any) -> None:
    found = Axe().run(page).response["violations"]
    serious = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    assert not serious, "; ".join(f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in serious)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_wide_and_narrow_and_is_read_in_light_and_dark(visitor: Visitor, name: str) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": 900})
    page = visitor.open(f"/{name}?study=toy")
    page.wait_for_timeout(300)
    assert page.get_by_test_id("stSidebar").bounding_box()["width"] > 200, "the sidebar is open"
    fits(page)
    accessible(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    colour = page.locator('[data-testid="stApp"]').evaluate("element => getComputedStyle(element).backgroundColor")
    assert max(int(channel) for channel in re.findall(r"\d+", colour)[:3]) < 60
    accessible(page)
    page.set_viewport_size({"width": 420, "height": 800})
    page.wait_for_timeout(700)
    assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth") <= 1


@pytest.mark.parametrize("name", ["", "Measures", "Methods", "Similarity"])
def test_many_methods_fit_too(visitor: Visitor, name: str) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": 900})
    page = visitor.open(f"/{name}?study=many")
    page.wait_for_timeout(300)
    fits(page)


def test_the_server_stays_small_after_every_page(visitor: Visitor, address: str) -> None:
    for path in [f"/{name}?study={study}" for study in ("toy", "another") for name in NAMES]:
        visitor.page.goto(visitor.address + path)
        visitor.settle()
    resident = resident_megabytes(SERVERS[address])
    if resident is None:
        pytest.skip("the system does not say how much memory a process uses")
    assert resident < MEMORY
