"""What a visitor can pick. Every pick is kept in the address, so that a link shows the same.

A value in the address that is not offered falls back to the default, and the page says so once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.elements.lib.mutable_expander_container import ExpanderContainer

T = TypeVar("T")
# Where notes about the address go, so that they push no picker out of its line; those of a fragment that reruns alone
# go next to the picker.
_NOTES: ContextVar[DeltaGenerator | None] = ContextVar("notes", default=None)
Look = Literal["list", "segments", "pills"]
_ONE: dict[str, Callable[..., Any]] = {"segments": st.segmented_control, "pills": st.pills}


def gather_notes() -> None:
    """Keep a place here for what this run of the page has to say about its address."""
    _NOTES.set(st.container())


def one(
    label: str,
    options: Sequence[T],
    key: str,
    *,
    first: T | None = None,
    words: Callable[[Any], str] = str,
    look: Look = "list",
    **more: Any,
) -> T:
    """One of ``options``; ``first`` (the first one if not given) stays out of the address.

    Args:
        label: what the picker is called.
        options: at least one, with words that differ.
        key: name in the address.
        words: what an option is called, on the page and in the address.
        look: a list to open, or all options side by side.
        more: passed on to Streamlit.
    """
    _say_unknown(label, key, [words(option) for option in options])
    chosen = options[0] if first is None else first
    if look == "list":
        picked = st.selectbox(
            label, options, index=options.index(chosen), format_func=words, key=key, bind="query-params", **more
        )
    else:
        picked = _ONE[look](
            label, options, default=chosen, format_func=words, required=True, key=key, bind="query-params", **more
        )
    return chosen if picked is None else picked


def maybe_one(
    label: str, options: Sequence[T], key: str, *, words: Callable[[Any], str] = str, **more: Any
) -> T | None:
    """One of ``options`` or none, from a list that can be searched."""
    _say_unknown(label, key, [words(option) for option in options])
    return st.selectbox(label, options, index=None, format_func=words, key=key, bind="query-params", **more)


def several(
    label: str,
    options: Sequence[T],
    key: str,
    *,
    first: Sequence[T] = (),
    words: Callable[[Any], str] = str,
    look: Look = "list",
    **more: Any,
) -> list[T]:
    """Any of ``options``, in the order in which they were picked; ``first`` stays out of the address."""
    _say_unknown(label, key, [words(option) for option in options])
    shared = {"default": list(first), "format_func": words, "key": key, "bind": "query-params", **more}
    if look == "list":
        return list(st.multiselect(label, options, **shared))
    return list(_ONE[look](label, options, selection_mode="multi", **shared))


def along(label: str, options: Sequence[T], key: str, *, first: T | None = None, **more: Any) -> T:
    """One of ``options`` that have an order, by a slider; of a single option there is nothing to slide."""
    if len(options) == 1:
        return options[0]
    _say_unknown(label, key, [str(option) for option in options])
    start = options[0] if first is None else first
    picked = st.select_slider(label, options, value=start, key=key, bind="query-params", **more)
    return options[0] if picked is None else picked


def switch(label: str, key: str, *, on: bool = False, **more: Any) -> bool:
    """On or off."""
    _say_unknown(label, key, ["true", "false", "True", "False"])
    return st.toggle(label, value=on, key=key, bind="query-params", **more)


def opened(label: str, key: str) -> ExpanderContainer:
    """A part that is folded away; ``open`` says whether it is to be filled."""
    _say_unknown(label, key, ["true", "false", "True", "False"])
    return st.expander(label, key=key, on_change="rerun", bind="query-params")


def span(label: str, low: int, high: int, key: str, **more: Any) -> tuple[int, int]:
    """Two ends of a range of whole numbers, by a slider with two handles; the whole range stays out of the address."""
    asked = st.query_params.get_all(key)
    numbers = [int(value) for value in asked if re.fullmatch(r"-?\d{1,9}", value)]
    if asked and not (len(asked) == len(numbers) == 2 and low <= min(numbers) <= max(numbers) <= high):
        _say_unknown(label, key, [])
    first, last = sorted(st.slider(label, low, high, (low, high), key=key, bind="query-params", **more))
    return int(first), int(last)


def _say_unknown(label: str, key: str, offered: Sequence[str]) -> None:
    """Say which values the address asks for that are not offered (Streamlit itself falls back in silence)."""
    unknown = [value for value in st.query_params.get_all(key) if value and value not in offered]
    if unknown:
        plain = ", ".join(f"“{as_text(value)}”" for value in unknown[:3])
        with _NOTES.get() or nullcontext():
            st.caption(f":material/link_off: {label}: the link asks for {plain}, which is not offered here.")


def as_text(asked: str) -> str:
    """A value from the address, short and without anything that Markdown or HTML would read."""
    return re.sub(r"[^\w .,%()+-]", "", asked)[:60]
