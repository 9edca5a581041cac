"""Words from files and addresses, on their way into what Streamlit reads as Markdown."""

from __future__ import annotations

import re

# What has a meaning anywhere in a line; a colon has one before a word (icons, colours) and before // (links).
_ANYWHERE = re.compile(r"([\\`*_{}\[\]<>$~|&]|:(?=[\w/]))")
# What has a meaning at the beginning of a line only: headings, lists, rules.
_AT_FIRST = re.compile(r"^(\s*)([#+=-])|^(\s*\d+)([.)])", re.MULTILINE)
# What Streamlit looks for once escapes are gone: :smile:, bare links and addresses, and arrows and signs of characters.
_AFTERWARDS = re.compile(r"(:)(?=[\w+/-])|(www)(?=\.)|(@)(?=\w)|(<-)(?=>)|([<~>-])(?=[=>-])", re.IGNORECASE)
JOINER = "\N{WORD JOINER}"  # nobody sees it, and no pattern goes across it


def verbatim(text: str) -> str:
    """Text from a file for where Streamlit reads Markdown: every character stands for itself."""
    broken = _AFTERWARDS.sub(lambda found: f"{found[0]}{JOINER}", text)
    inside = _ANYWHERE.sub(r"\\\1", broken)
    return _AT_FIRST.sub(lambda found: f"{found[1] or found[3] or ''}\\{found[2] or found[4]}", inside)
