#!/usr/bin/env python
"""How quick the app is in a real browser, beside a blank Streamlit page in the same run, and what memory it takes.

``benchmarks/app.py [--study cifar10] [--repeats 5] [--write]``. Medians over the repeats:

* first chart: from asking for a page until its first chart is drawn, less the time until a page with one word on it is
  idle; and the same until all of the page is there;
* filter: from a choice that the server answers until the chart shows other points;
* highlight: from a click on a point until the same image is ringed in 18 panels of 500 points, without the server;
* ten times larger: opening pages on a made-up study with ten times the networks, over opening them on the small one;
* memory of the server after all pages, and with ten visitors who click at once.

``KDPIPE_APP_PYTHON`` names the interpreter that serves (such as one with ``requirements.txt`` alone); ``--write``
puts the tables into docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

from browser import find_chromium
from measures import replace
from playwright.sync_api import Page, sync_playwright
from synthetic import Recipe, write_toy_study
from visits import CHART, DOTS, FIND_VIEW, IDLE, QUIET, resident_megabytes, served

from kdpipe.artifacts.store import ARTIFACTS

BLANK = 'import streamlit as st\n\nst.set_page_config(page_title="blank", layout="wide")\nst.write("blank")\n'
VISITORS = 10
RINGS = (
    "(element) => {"
    + FIND_VIEW
    + """
  const view = viewOf(element);
  const ring = (mark) => mark.marktype === "symbol" && !mark.name.startsWith("panel_") && !mark.name.includes("legend");
  return view ? items(view, ring).map((dot) => dot.datum.sample_id) : [];
}"""
)
SMALL = Recipe(name="small", samples=500, seeds=(0,), fractions=(0.1,), diverged=False)
LARGE = Recipe(name="large", samples=500, seeds=tuple(range(10)), fractions=(0.1,), diverged=False)
PANELS = Recipe(
    name="panels", samples=500, seeds=(0, 1), fractions=(0.1,), methods=("kd",), diverged=False,
    student_layers=tuple(f"layer{i}" for i in range(1, 7)),
)  # fmt: skip


def pages() -> list[str]:
    """Addresses of all pages, Home first."""
    files = sorted((ROOT / "pages").glob("*.py"), key=lambda path: int(path.stem.split("_")[0]))
    return ["", *(path.stem.split("_", 1)[1] for path in files)]


def idle(page: Page) -> None:
    page.wait_for_selector(IDLE, timeout=60_000)


def drawn(page: Page) -> None:
    """Until the first chart of the page holds marks, and the page has been run to its end."""
    page.wait_for_selector(f"{CHART} canvas, {CHART} svg.marks", timeout=60_000)
    idle(page)


def first_drawn(page: Page) -> None:
    """Until the first chart of the page stands there."""
    page.wait_for_selector(f"{CHART} canvas, {CHART} svg.marks", timeout=60_000)


def seconds_to(page: Page, url: str, ready: Callable[[Page], None]) -> float:
    page.goto("about:blank")
    began = time.perf_counter()
    page.goto(url)
    ready(page)
    return time.perf_counter() - began


def first_charts(browser: Any, base: str, blank: str, study: str, repeats: int) -> dict[str, tuple[float, float]]:
    """Median seconds until each page's first chart and until all of it; under ``blank`` those of an empty page."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(repeats + 1):  # the first round reads files that later ones find in memory
        for name in ("blank", *pages()):
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            if name == "blank":
                took = seconds_to(page, blank, idle)
                both = (took, took)
            else:
                began = time.perf_counter()
                took = seconds_to(page, f"{base}/{name}?study={study}", first_drawn)
                idle(page)
                both = (took, time.perf_counter() - began)
            found.setdefault(name or "Home", []).append(both)
            page.close()
    middle = statistics.median
    return {
        name: (middle(first for first, _ in times[1:]), middle(whole for _, whole in times[1:]))
        for name, times in found.items()
    }


def until(page: Page, changed: Callable[[], object], seconds: float = 10.0) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        if changed():
            return time.perf_counter() - began
        page.wait_for_timeout(5)
    raise RuntimeError("nothing changed")


def dots(page: Page, number: int = 0) -> list[dict[str, Any]]:
    return page.locator(CHART).nth(number).evaluate(DOTS) or []


def filter_seconds(browser: Any, base: str, study: str, repeats: int) -> float:
    """Another measure on Measures: the server computes, the chart is drawn anew."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{base}/Measures?study={study}")
    drawn(page)
    times = []
    names = ["kNN accuracy", "Silhouette"]
    for at in range(repeats + 1):
        before = heights(dots(page))
        page.locator(".st-key-measure input").click()
        page.get_by_role("option", name=names[at % 2], exact=True).click()
        times.append(until(page, partial(moved, page, before)))
        idle(page)
    page.close()
    return statistics.median(times[1:])


def heights(of: list[dict[str, Any]]) -> list[float]:
    return [round(dot["y"], 1) for dot in of]


def moved(page: Page, before: list[float]) -> bool:
    """Dots are drawn, and not where they were."""
    now = heights(dots(page))
    return bool(now) and now != before


def nearest(dot: dict[str, Any], others: list[dict[str, Any]]) -> float:
    """Pixels to the nearest other dot: a lonely one is clicked without doubt."""
    return min(abs(dot["x"] - other["x"]) + abs(dot["y"] - other["y"]) for other in others if other is not dot)


def highlight_seconds(browser: Any, base: str, repeats: int) -> tuple[float, int]:
    """A clicked image, until it is ringed in all panels; and in how many panels that was."""
    page = browser.new_page(viewport={"width": 1400, "height": 1400})
    page.goto(f"{base}/Layers?study=panels&networks=teacher&networks=plain, 10%25 of labels, seed 0"
              "&networks=kd, 10%25 of labels, seed 0" + "".join(f"&layers=layer{i}" for i in range(1, 7)))  # fmt: skip
    drawn(page)
    page.wait_for_timeout(1500)
    page.locator(CHART).first.scroll_into_view_if_needed()
    times, panels = [], 0
    for at in range(repeats + 1):
        first = [dot for dot in dots(page) if dot["mark"] == "panel_0_marks"]
        panels = len({dot["mark"] for dot in dots(page) if dot["mark"].startswith("panel_")})
        apart = sorted(first, key=lambda dot: -nearest(dot, first))
        target = apart[at]
        page.mouse.click(target["x"], target["y"])

        def ringed(sample: int = target["sample"], panels: int = panels) -> bool:
            rings = page.locator(CHART).first.evaluate(RINGS)  # these alone: all dots take longer to read than to draw
            return len(rings) == panels and set(rings) == {sample}

        times.append(until(page, ringed))
        page.wait_for_timeout(1500)  # the server's answer to the click is another matter
        idle(page)
    page.close()
    return statistics.median(times[1:]), panels


def growth(browser: Any, base: str, repeats: int) -> dict[str, float]:
    """Seconds on the study with ten times the networks over seconds on the small one, by page."""
    names = [name for name in pages() if name != "Study"]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(repeats + 1):
        for name in names:
            for study in ("small", "large"):
                page = browser.new_page(viewport={"width": 1400, "height": 1000})
                found.setdefault((name, study), []).append(seconds_to(page, f"{base}/{name}?study={study}", drawn))
                page.close()
    middle = {key: statistics.median(times[1:]) for key, times in found.items()}
    return {name or "Home": middle[name, "large"] / middle[name, "small"] for name in names}


def crowd(browser: Any, base: str, study: str) -> int:
    """Ten visitors who open pages and click at once; how many of them saw an exception."""
    names = pages()
    tabs = [browser.new_page(viewport={"width": 1400, "height": 1000}) for _ in range(VISITORS)]
    for at, tab in enumerate(tabs):
        tab.goto(f"{base}/{names[at % len(names)]}?study={study}", wait_until="commit")
    for tab in tabs:
        drawn(tab)
    for turn in range(3):
        for at, tab in enumerate(tabs):
            tab.goto(f"{base}/{names[(at + turn + 1) % len(names)]}?study={study}", wait_until="commit")
        for tab in tabs:
            drawn(tab)
    broken = sum(tab.locator('[data-testid="stException"]').count() > 0 for tab in tabs)
    return broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--study", default="cifar10", help="a committed study with maps")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", choices=["highlight"], help="this part alone, written between marks of its own")
    arguments = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        sys.exit("there is no Chromium here: python tests/browser.py installs one.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        made = Path(folder) / "artifacts"
        for recipe in (SMALL, LARGE, PANELS):
            write_toy_study(made, recipe)
        if arguments.only:
            browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
            with served(made) as (base, _):
                lit_in_words = highlighted(*highlight_seconds(browser, base, arguments.repeats), arguments.repeats)
            print(lit_in_words)
            if arguments.write:
                replace("app-highlight", lit_in_words)
            return
        blank_script = Path(folder) / "blank.py"
        blank_script.write_text(BLANK)
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        with served(ARTIFACTS) as (base, pid), served(ARTIFACTS, blank_script) as (blank, _):
            charts = first_charts(browser, base, blank, arguments.study, arguments.repeats)
            print({name: [round(value, 2) for value in both] for name, both in charts.items()}, flush=True)
            filtered = filter_seconds(browser, base, arguments.study, arguments.repeats)
            all_pages = resident_megabytes(pid)
            print(f"filter {filtered:.3f} s; memory after all pages {all_pages:.0f} MB", flush=True)
            broken = crowd(browser, base, arguments.study)
            crowded = resident_megabytes(pid)
            print(f"{VISITORS} visitors: {crowded:.0f} MB, {broken} saw an exception", flush=True)
        with served(made) as (base, _):
            lit, panels = highlight_seconds(browser, base, arguments.repeats)
            print(f"highlight {lit:.3f} s on {panels} panels", flush=True)
            larger = growth(browser, base, min(arguments.repeats, 3))
            print({name: round(value, 2) for name, value in larger.items()}, flush=True)
        browser.close()
    text = written(charts, filtered, larger, all_pages, crowded, broken, arguments)
    lit_in_words = highlighted(lit, panels, arguments.repeats)
    print("\n" + text + "\n" + lit_in_words)
    if arguments.write:
        replace("app", text)
        replace("app-highlight", lit_in_words)


def highlighted(lit: float, panels: int, repeats: int) -> str:
    return (
        f"A clicked image is ringed in {panels} panels of 500 points, by the browser alone, within {1000 * lit:.0f} ms "
        f"(median of {repeats}).\n"
    )


def written(
    charts: dict[str, tuple[float, float]], filtered: float,
    larger: dict[str, float],
    all_pages: float | None, crowded: float | None, broken: int, arguments: argparse.Namespace,
) -> str:  # fmt: skip
    """The tables of docs/BENCHMARKS.md."""
    blank = charts["blank"][0]
    lines = [
        f"One run of `benchmarks/app.py` (medians of {arguments.repeats}, study {arguments.study}, 2 cores, Chromium "
        f"without a GPU; ten times the networks: medians of 3, all of the page). A blank Streamlit page took "
        f"{blank:.2f} s.",
        "",
        "| page | first chart, s more than the blank page | all of it, s more | ten times the networks |",
        "|---|---:|---:|---:|",
    ]
    for name, (first, whole) in charts.items():
        if name != "blank":
            ratio = f"{larger[name]:.2f}x" if name in larger else "–"
            lines.append(f"| {name} | {first - blank:.2f} | {whole - blank:.2f} | {ratio} |")
    lines += [
        "",
        f"Another measure, computed by the server: {1000 * filtered:.0f} ms.",
        f"Memory of the server after all pages: {all_pages:.0f} MB; with {VISITORS} visitors at once: "
        f"{crowded:.0f} MB, and {broken} of them saw an error.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
