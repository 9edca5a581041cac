"""Words from files and addresses, on their way into what Streamlit reads as Markdown."""

from __future__ import annotations

import re


def verbatim(text: str) -> str:
    """Text from a file for where Streamlit reads Markdown: every character stands for itself."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~$:-])", r"\\\1", text)
