"""Several visitors at once on one real server: it answers all of them, without a fault and without standing still."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from synthetic import MANY, Recipe, write_toy_study
from visits import served
from websockets.sync.client import ClientConnection, connect

VISITORS = 6
SECONDS = 15  # of visits; a page that was begun is waited for
PATIENCE = 20  # seconds without a word from the server, after which it stands still
# Tables as Arrow, images, names of networks, words of verdicts: what once ran Python inside polars or went to pandas.
PAGES = ("Methods", "Study", "Sample", "Flips", "Training", "Evidence", "Layers", "")


def _answer(socket: ClientConnection, page: str, query: str) -> list[str]:
    """Ask for a page as a browser does, wait until it is whole, and return the errors that are shown on it."""
    asked = BackMsg()
    asked.rerun_script.page_name, asked.rerun_script.query_string = page, query
    socket.send(asked.SerializeToString())
    shown: list[str] = []
    while True:
        message = ForwardMsg.FromString(socket.recv(timeout=PATIENCE, decode=False))
        element = message.delta.new_element
        if element.HasField("exception"):
            shown.append(f"{page}: {element.exception.type} {element.exception.message}")
        if element.HasField("alert") and element.alert.format == element.alert.ERROR:
            shown.append(f"{page}: {element.alert.body}")
        if message.WhichOneof("type") == "script_finished":
            return shown


def _visit(url: str, number: int, until: float) -> tuple[int, list[str]]:
    """One visitor walks from page to page; returns how many were whole, and the errors on them."""
    whole, shown = 0, []
    address = url.replace("http", "ws") + "/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None, open_timeout=PATIENCE, proxy=None) as socket:  # type: ignore[list-item]
        while not whole or time.monotonic() < until:
            page = PAGES[(number + whole) % len(PAGES)]
            study = ("toy", "many")[(number + whole // len(PAGES)) % 2]
            shown += _answer(socket, page, f"study={quote(study)}&open-numbers=true")
            whole += 1
    return whole, shown


@pytest.mark.slow
def test_a_crowd_of_first_visitors_is_answered(tmp_path: Path) -> None:
    write_toy_study(tmp_path, Recipe(samples=60, seeds=(0, 1), fractions=(0.1,)))
    write_toy_study(tmp_path, MANY)
    with served(tmp_path) as (url, _), ThreadPoolExecutor(VISITORS) as crowd:
        until = time.monotonic() + SECONDS
        visits = [crowd.submit(_visit, url, number, until) for number in range(VISITORS)]
        try:
            done = [visit.result() for visit in visits]
        except TimeoutError:
            pytest.fail(f"the server said nothing for {PATIENCE} seconds: its threads wait for each other")
    assert [errors for _, errors in done] == [[]] * VISITORS
    assert all(whole for whole, _ in done)
