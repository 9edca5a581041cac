"""Saving charts as SVG: a button next to the ones that Streamlit gives each chart, which save pixels alone.

The script runs in the page, is the same for every study and reads nothing from artifacts. It asks Vega itself for
the drawing, so signature and link below a chart are part of the file.

Streamlit 1.67 offers no way to a chart's Vega view: it hands the view to nobody, drops all of ``embedOptions`` but
renderer, theme and padding (so Vega-Embed's own menu cannot be had), and its own button saves pixels. ``viewOf``, the
one function here that knows of React, looks for the view in what React keeps with the chart's element. Where a later
Streamlit keeps it elsewhere there is no button, and all else works: a test takes it away and looks.
"""

from __future__ import annotations

import streamlit as st

_NO_ROOM = """<style>[data-testid="stElementContainer"]:has(.kd-figures) { display: none; }</style>"""
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


def offer_svg() -> None:
    """Give every chart of the page a button that saves it as SVG."""
    st.html(_NO_ROOM)
    st.html(_SCRIPT, unsafe_allow_javascript=True)
