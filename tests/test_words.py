"""Text from files is shown as it is written, whatever Markdown would make of it."""

from __future__ import annotations

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as strat
from markdown_it import MarkdownIt

from kdpipe.app.shell.words import verbatim

SHOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@given(strat.text("ab1 .#*_`~[](){}<>!&;:|+-=\\$/\"'", min_size=1, max_size=40))
def test_every_character_stands_for_itself(text: str) -> None:
    text = f"x {text}".strip()
    html = SHOWN.render(verbatim(text)).strip()
    assert html.startswith("<p>") and html.endswith("</p>") and html.count("<") == 2
    assert unescape(html[3:-4]) == text


@pytest.mark.parametrize("line", ["# title", "- item", "+ item", "1. item", "2) item", "===", "> quote", "    ---"])
def test_nothing_begins_a_block(line: str) -> None:
    html = SHOWN.render(verbatim(line.strip())).strip()
    assert html.startswith("<p>") and unescape(html[3:-4]) == line.strip()


@pytest.mark.parametrize("text", [":material/home:", ":red[x]", "http://example.org"])
def test_streamlits_own_marks_and_bare_links_are_broken_up(text: str) -> None:
    assert "\\:" in verbatim(text)
