"""What every chart needs in the browser: the code that draws it, early, and a button that saves it as SVG.

The scripts run in the page, are the same for every study and read nothing from artifacts.

Streamlit fetches what draws charts (1.5 MB) only once the first chart has come; asked for at the beginning of the
page, it arrives while the page still computes. The button stands beside those that Streamlit gives each chart, which
save pixels alone: it asks Vega itself for the drawing, so signature and link below a chart are part of the file.
Both reach into Streamlit; where they do not find what they look for, all else works.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import streamlit as st

_NO_ROOM = """<style>[data-testid="stElementContainer"]:has(.kd-figures) { display: none; }</style>"""
_EARLY = """<script>
(() => {
  const own = document.querySelector('script[type="module"][src]');
  if (own) import(new URL("NAME", own.src).href).catch(() => {});
})();
</script>"""
_SCRIPT = """<span class="kd-figures"></span><script>
(() => {
  if (window.kdpipeFigures) return;
  window.kdpipeFigures = true;
  const isView = (it) => it && typeof it.toSVG === "function" && typeof it.runAsync === "function";
  const viewOf = (chart) => {
    let fibre = chart[Object.keys(chart).find((key) => key.startsWith("__reactFiber"))];
    for (; fibre; fibre = fibre.return)
      for (let hook = fibre.memoizedState; hook && typeof hook === "object"; hook = hook.next) {
        const held = hook.memoizedState;
        if (isView(held)) return held;
        if (held && typeof held === "object" && isView(held.current)) return held.current;
      }
    return null;
  };
  const save = async (chart) => {
    const view = viewOf(chart);
    if (!view) return;
    const drawing = new Blob([await view.toSVG()], { type: "image/svg+xml" });
    const link = document.createElement("a");
    const study = new URLSearchParams(location.search).get("study");
    const place = location.pathname.split("/").filter(Boolean).pop() || "Home";
    link.download = ["kdpipe", study, place].filter(Boolean).join("-") + ".svg";
    link.href = URL.createObjectURL(drawing);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const offer = (event) => {
    const frame = event.target.closest && event.target.closest('[data-testid="stFullScreenFrame"]');
    const chart = frame && frame.querySelector('[data-testid="stVegaLiteChart"]');
    const buttons = frame && frame.querySelector('[data-testid="stElementToolbarButtonContainer"]');
    const like = buttons && buttons.querySelector("button[aria-label^='Download as PNG']");
    if (!chart || !like || buttons.querySelector(".kd-svg") || !viewOf(chart)) return;
    const button = document.createElement("button");
    button.className = like.className + " kd-svg";
    button.type = "button";
    button.textContent = "SVG";
    button.title = "Download as SVG";
    button.style.fontSize = "0.7rem";
    button.setAttribute("aria-label", like.getAttribute("aria-label").replace("PNG", "SVG"));
    button.addEventListener("click", () => save(chart));
    buttons.appendChild(button);
  };
  for (const kind of ["mouseover", "focusin", "touchstart"]) document.addEventListener(kind, offer, { passive: true });
})();
</script>"""


def prepare() -> None:
    """Have what draws charts fetched early, and give every chart of the page a button that saves it as SVG."""
    st.html(_NO_ROOM)
    st.html(_SCRIPT + _early(), unsafe_allow_javascript=True)


@cache
def _early() -> str:
    """The script that fetches Streamlit's module for charts, found by its name, which ends in a hash."""
    folder = Path(st.__file__).parent / "static" / "static" / "js"
    names = [path.name for path in folder.glob("*VegaLiteChart.*.js")]
    return _EARLY.replace("NAME", names[0]) if len(names) == 1 else ""
