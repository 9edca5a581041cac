"""Text from files is shown as it is written, whatever Markdown would make of it."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as strat
from markdown_it import MarkdownIt

from kdpipe.app.shell.words import JOINER, verbatim

SHOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@given(strat.text("ab1 .#*_`~[](){}<>!&;:|+-=\\$/\"'", min_size=1, max_size=40))
def test_every_character_stands_for_itself(text: str) -> None:
    text = f"x {text}".strip()
    html = SHOWN.render(verbatim(text)).strip()
    assert html.startswith("<p>") and html.endswith("</p>") and html.count("<") == 2
    assert unescape(html[3:-4]).replace(JOINER, "") == text


@pytest.mark.parametrize("line", ["# title", "- item", "+ item", "1. item", "2) item", "===", "> quote", "    ---"])
def test_nothing_begins_a_block(line: str) -> None:
    html = SHOWN.render(verbatim(line.strip())).strip()
    assert html.startswith("<p>") and unescape(html[3:-4]).replace(JOINER, "") == line.strip()


# What Streamlit 1.67 looks for in the text of a paragraph, where escapes are gone: emoji, its icons and logo, its signs
# of characters, and the bare links and addresses of GitHub's Markdown.
LATER = re.compile(
    r":\+1:|:-1:|:[\w-]+:|:material[_/]\w+:|:[a-z][\w-]*\[|(^|\s)(<->|->|<-|--|>=|<=|~=)(\s|$)|https?://|www\.|[\w.+-]+@[\w-]+\.\w"
)


@pytest.mark.parametrize(
    "text",
    [":smile:", ":+1:", ":-1:", ":cat: not :dog:", ":material/home:", ":streamlit:", ":red[x]", "http://example.org",
     "www.example.com", "WWW.example.com", "me@example.com",
     "a -> b", "a <- b", "a <-> b", "a -- b", "a >= b <= c ~= d"],
)  # fmt: skip
def test_nothing_is_left_that_streamlit_would_still_change(text: str) -> None:
    assert LATER.search(text) or text == "WWW.example.com"
    seen = unescape(SHOWN.render(verbatim(text)).strip()[3:-4])
    assert not LATER.search(seen) and seen.replace(JOINER, "") == text
