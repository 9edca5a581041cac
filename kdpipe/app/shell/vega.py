"""Charts as Streamlit takes them, checked against Vega-Lite's schema in tests alone."""

from __future__ import annotations

import os
from typing import Any

from altair.utils.schemapi import disable_debug_mode

# Altair spends much of a page's time on holding channels and charts against Vega-Lite's schema, so only tests do it.
CHECKED = bool(os.environ.get("KDPIPE_CHECK_CHARTS"))
if not CHECKED:
    disable_debug_mode()


class Unchecked:
    """A chart as Streamlit takes it, made without a look at Vega-Lite's schema unless :data:`CHECKED`."""

    def __init__(self, chart: Any) -> None:
        self._chart = chart

    def to_dict(self) -> dict[str, Any]:
        """The specification, as Streamlit asks a chart of Altair for it."""
        return self._chart.to_dict(validate=CHECKED)
