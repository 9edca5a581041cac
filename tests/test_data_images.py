"""Decoding: an image is read as a viewer shows it, or refused in one sentence."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kdpipe.data.sources.images import decode
from kdpipe.errors import DataError


def read(data: bytes | Path, **more) -> np.ndarray:
    return decode(data, "here.png", SimpleNamespace(**{"image_size": None, "channels": None, **more}))


def encoded(image: Image.Image, form: str = "PNG", **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (4, 6, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (4, 6), np.uint16)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_sixteen_bit_grey_keeps_its_upper_eight_bits(form, channels):
    pixels = read(encoded(Image.fromarray(DEEP), form), channels=channels)
    assert (pixels == (DEEP >> 8)[None]).all() and len(pixels) == (channels or 1)


def test_sixteen_bit_grey_of_big_endian_tiff():
    image = Image.frombytes("I;16B", (6, 4), DEEP.astype(">u2").tobytes())
    assert (read(encoded(image, "TIFF")) == DEEP >> 8).all()


def test_a_clear_value_of_sixteen_bits_is_white():
    pixels = read(encoded(Image.fromarray(DEEP), transparency=int(DEEP[1, 2])))
    assert pixels[0, 1, 2] == 255 and (pixels[0][DEEP[1, 2] != DEEP] == (DEEP >> 8)[DEEP[1, 2] != DEEP]).all()


@pytest.mark.parametrize(("kind", "said"), [(np.float32, "floating-point numbers"), (np.int32, "32-bit integers")])
def test_numbers_without_black_and_white_are_refused(kind, said):
    with pytest.raises(DataError, match=f"^here.png: its pixels are {said}.*save it as 8-bit grey or RGB.$"):
        read(encoded(Image.fromarray(np.ones((4, 6), kind)), "TIFF"))


TURNS = {  # what has to be done to the stored picture, as EXIF 2.3, 4.6.4 says
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_images_stand_as_exif_says(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read(encoded(Image.fromarray(RGB), form, exif=exif))
    assert (np.moveaxis(pixels, 0, 2) == TURNS[orientation](RGB)).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_damage_the_picture(exif):
    image = Image.fromarray(RGB)
    assert (read(encoded(image, exif=exif)) == read(encoded(image))).all()


def with_alpha(alpha: np.ndarray | int) -> Image.Image:
    image = Image.fromarray(RGB)
    image.putalpha(Image.fromarray(np.broadcast_to(np.uint8(alpha), RGB.shape[:2]).copy()))
    return image


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_transparent_parts_are_white_whatever_colour_is_hidden_there(form):
    alpha = np.where(np.arange(6) < 3, 0, 255)
    pixels = np.moveaxis(read(encoded(with_alpha(alpha), form)), 0, 2)
    assert (pixels[:, :3] == 255).all() and (pixels[:, 3:] == RGB[:, 3:]).all()


def test_half_transparent_parts_are_half_white():
    pixels = np.moveaxis(read(encoded(with_alpha(128))), 0, 2).astype(float)
    assert np.abs(pixels - (RGB.astype(float) * 128 / 255 + 127)).max() <= 1


def test_an_opaque_alpha_changes_nothing():
    assert (np.moveaxis(read(encoded(with_alpha(255))), 0, 2) == RGB).all()


def test_clear_colours_of_palettes_and_of_grey_are_white():
    grey = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    for image, channels in ((grey, 1), (grey.convert("P"), 3)):
        plain, clear = read(encoded(image)), read(encoded(image, transparency=3))
        assert len(clear) == channels and (clear[:, 0, 3] == 255).all()
        assert (clear != plain).any(0).sum() == 1


def test_an_animation_gives_its_first_frame_and_a_tiff_of_pages_is_refused():
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    more = {"save_all": True, "append_images": frames[1:]}
    assert (np.moveaxis(read(encoded(frames[0], "PNG", **more)), 0, 2) == RGB).all()
    with pytest.raises(DataError, match=r"here.png: a TIFF of 2 pages; save each page as a file of its own"):
        read(encoded(frames[0], "TIFF", **more))


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF", "ignore:Metadata Warning")
def test_every_image_cut_anywhere_is_read_or_refused_in_one_line(tmp_path):
    for form in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"):
        whole = encoded(Image.fromarray(RGB), form)
        for cut in range(0, len(whole), 3):
            try:
                read(whole[:cut])
            except DataError as error:
                assert len(str(error).splitlines()) == 1 and str(error).startswith("here.png: not a readable image (")


def test_a_picture_of_too_many_pixels_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"here.png: not a readable image .*exceeds limit of 20 pixels"):
        read(encoded(Image.fromarray(RGB)))


def test_a_pointer_of_git_lfs_is_called_by_its_name(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    (tmp_path / "0.png").write_bytes(pointer)
    for data in (pointer, tmp_path / "0.png"):
        with pytest.raises(DataError, match=r"here.png: .*Git LFS pointer.*git lfs pull"):
            read(data)
