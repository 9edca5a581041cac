"""Probe images for tooltips and strips, as data URIs that we build ourselves and from WebP only."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import polars as pl
from PIL import Image

from kdpipe.app.shell.theme import GREY, HEAT

# Small images are enlarged without smoothing, so that their pixels stay what the network saw.
PIXELS_CSS = """<style>
#vg-tooltip-element img, .kd-strip img { image-rendering: pixelated; width: 96px; height: 96px; object-fit: contain; }
.kd-strip { display: flex; flex-wrap: wrap; gap: 6px; align-items: flex-end; }
.kd-strip figure { margin: 0; text-align: center; font-size: .75rem; max-width: 118px; overflow-wrap: anywhere;
  align-self: flex-start; }
[data-testid="stTable"] td, [data-testid="stTable"] td * { overflow-wrap: anywhere; white-space: normal; }
.kd-strip img { width: 48px; height: 48px; display: block; margin: 0 auto; border: 3px solid;
  border-radius: 4px; }
.kd-strip figure.large img, .kd-strip figure.heat img { width: 112px; height: 112px; }
.kd-strip figure.heat { width: 118px; }
.kd-heat img { border-color: GREY; }
.kd-heat { position: relative; width: 112px; }
.kd-cells { position: absolute; display: grid; }
.kd-cells span { background: HEAT; }
.kd-gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(124px, 1fr)); gap: 14px 10px; }
.kd-gallery figure { margin: 0; font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
.kd-gallery img { width: 96px; height: 96px; display: block; margin-bottom: 4px; border: 3px solid; border-radius: 4px;
  object-fit: contain; image-rendering: pixelated; }
.kd-gallery a { color: inherit; text-decoration: none; display: block; }
.kd-gallery a:hover figcaption, .kd-gallery a:focus-visible figcaption { text-decoration: underline; }
</style>""".replace("HEAT", HEAT).replace("GREY", GREY)
_HEATED, _FRAME = 106, 3  # pixels of a figure of class heat inside its frame, and of the frame
_NO_IMAGE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


LINE, LINES = 16, 7  # letters of a line, and lines, of a text that stands in the place of an image


def data_uri(image: bytes) -> str:
    """A data URI of WebP bytes, or of a picture of a text in UTF-8; anything else becomes an empty pixel.

    A browser would sniff the type of other bytes. In a picture of our own, letters are letters and never markup.
    """
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "data:image/webp;base64," + base64.b64encode(image).decode()
    text = as_text_sample(image)
    if not text:
        return _NO_IMAGE
    return "data:image/svg+xml;base64," + base64.b64encode(_lettered(text).encode()).decode()


def as_text_sample(image: bytes) -> str:
    """What is said of a sample that is no image: its id, and below it its text; empty where the bytes are no text."""
    try:
        text = image.decode()
    except UnicodeDecodeError:
        return ""
    return text if all(letter.isprintable() or letter in "\n\t" for letter in text) else ""


def _lettered(text: str) -> str:
    """SVG of a text on a square: its id in grey, then the text in lines, cut where there is no more room."""
    name, _, said = text.partition("\n")
    lines = textwrap.wrap(said, LINE, max_lines=LINES, placeholder=" …") if said else textwrap.wrap(name, LINE)[:LINES]
    head = f'<text x="4" y="12" font-size="9" fill="{GREY}">{escape(name[: LINE + 4])}</text>' if said else ""
    body = "".join(f'<text x="4" y="{26 + 13 * row}">{escape(line)}</text>' for row, line in enumerate(lines))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="120" height="120" font-family="sans-serif" font-size="11">'
        f'<rect width="120" height="120" fill="#fff"/>{head}{body}</svg>'
    )


def with_images(samples: pl.DataFrame) -> pl.DataFrame:
    """``samples`` with their bytes replaced by data URIs (the tooltip wants the column named ``image``)."""
    return samples.with_columns(image=pl.Series([data_uri(image) for image in samples["image"]], dtype=pl.String))


def heat_strip(figures: Iterable[tuple[bytes, bytes, int, str]]) -> str:
    """HTML of images under their heat-maps. Each figure is (WebP bytes, heat bytes row by row, rows, caption)."""
    cells = (
        f'<figure class="heat"><div class="kd-heat"><img src="{data_uri(image)}" alt="{escape(caption, quote=True)}">'
        f"{_heat_cells(heat, rows, *size_of(image))}</div>{escape(caption)}</figure>"
        for image, heat, rows, caption in figures
    )
    return f'<div class="kd-strip">{"".join(cells)}</div>'


def size_of(image: bytes) -> tuple[int, int]:
    """Width and height of WebP bytes in pixels; a square where they cannot be read."""
    try:
        with Image.open(io.BytesIO(image), formats=("WEBP",)) as opened:
            return opened.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return 1, 1


def _heat_cells(heat: bytes, rows: int, width: int, height: int) -> str:
    """A grid of cells over the image alone, the more opaque the hotter; Streamlit strips SVG out of HTML."""
    scale = _HEATED / max(width, height)
    across, down = width * scale, height * scale  # the picture's own part of its frame, which it is centred in
    place = f"left:{_FRAME + (_HEATED - across) / 2:g}px;top:{_FRAME + (_HEATED - down) / 2:g}px"
    grid = f"grid-template:repeat({rows},1fr)/repeat({len(heat) // max(rows, 1)},1fr)"
    cells = "".join(f'<span style="opacity:{value / 255 * 0.75:.2f}"></span>' for value in heat)
    return f'<div class="kd-cells" style="{place};width:{across:g}px;height:{down:g}px;{grid}">{cells}</div>'


def strip(figures: Iterable[tuple[bytes, str, str]], large: bool = False) -> str:
    """HTML of images in a row. Each figure is (WebP bytes, caption, colour of its border)."""
    size = ' class="large"' if large else ""
    cells = (
        f'<figure{size}><img src="{data_uri(image)}" {_in_words(image, caption)} '
        f'style="border-color:{escape(colour, quote=True)}">{escape(caption)}</figure>'
        for image, caption, colour in figures
    )
    return f'<div class="kd-strip">{"".join(cells)}</div>'


def _in_words(image: bytes, caption: str) -> str:
    """What a screen reader says of an image; of a text the text too, which pointing at it shows in full."""
    text = escape(as_text_sample(image).replace("\n", ": "), quote=True)
    alt = f'alt="{escape(caption, quote=True)}{f", {text}" if text else ""}"'
    return f'{alt} title="{text}"' if text else alt


@dataclass(frozen=True)
class Figure:
    """An image with lines of words below it (the first one stands out), a coloured border, and where a click leads."""

    image: bytes
    lines: Sequence[str]
    border: str
    link: str = ""


def gallery(figures: Iterable[Figure]) -> str:
    """HTML of images in as many columns as fit; every word in it is shown as it is, never read as HTML."""
    return f'<div class="kd-gallery">{"".join(map(_figure, figures))}</div>'


def _figure(figure: Figure) -> str:
    first, *rest = (escape(line) for line in figure.lines)
    words = "<br>".join([f"<b>{first}</b>", *rest])
    # The words below say all that there is to say, so a screen reader need not hear them twice.
    shown = (
        f'<img src="{data_uri(figure.image)}" {_in_words(figure.image, "")} '
        f'style="border-color:{escape(figure.border, quote=True)}">'
        f"<figcaption>{words}</figcaption>"
    )
    link = f'<a href="{escape(figure.link, quote=True)}">{shown}</a>' if figure.link else shown
    return f"<figure>{link}</figure>"
