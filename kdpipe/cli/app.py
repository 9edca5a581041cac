"""``kdpipe app``: the pages, served by Streamlit on this machine."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import click

from kdpipe.cli import options
from kdpipe.errors import KdpipeError
from kdpipe.source import PAGES


@click.command()
@options.artifacts
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True, help="Port of the server.")
@click.option(
    "--address",
    default="localhost",
    show_default=True,
    help="Address to listen on; 0.0.0.0 lets other machines see the pages.",
)
@click.option("--browser/--no-browser", default=True, help="Open a browser.  [default: --browser]")
def app(artifacts: Path, port: int, address: str, browser: bool) -> None:
    """Open the pages on finished studies in a browser."""
    if not artifacts.is_dir():
        raise KdpipeError(
            f"{artifacts}: there is no such folder; run a study first, or name one that holds studies by --artifacts."
        )
    os.environ["KDPIPE_ARTIFACTS"] = str(artifacts.absolute())
    script, headless = str(PAGES / "Home.py"), str(not browser).lower()
    sys.argv = ["streamlit", "run", script, "--server.port", str(port), "--server.address", address]
    sys.argv += ["--server.headless", headless]
    runpy.run_module("streamlit", run_name="__main__")  # `python -m streamlit`, in this process: signals reach it
