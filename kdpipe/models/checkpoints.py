"""Checkpoints: what a weights file says of its network.

A study may bring its teacher along (``checkpoint = "file.safetensors"``). Files that kdpipe wrote know
their architecture, so that a study need not repeat it; a plain timm state dict does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from kdpipe.errors import NetworkError
from kdpipe.models.factories import identity, name_factory
from kdpipe.models.weights import not_safetensors, read_header

_FIELDS = ("arch", "factory", "arguments", "stem", "stem_stride", "layers")


def complete(section: dict[str, Any], folder: Path = Path()) -> Iterator[tuple[str, str]]:
    """Fill in, from its checkpoint, what a raw teacher or student section leaves out of its architecture.

    A factory that the section names may be used from now on; its path, from ``folder`` on, is made whole.

    What the section says stays. ``layers`` may differ from the file's, as it only says where to look, and
    so may arguments of regularisation (timm's ``drop_rate``, ``drop_path_rate``, ...).

    Yields:
        (field, problem): what stands in the way, or contradicts the file.
    """
    factory, checkpoint = section.get("factory"), section.get("checkpoint")
    if isinstance(factory, str):
        try:
            section["factory"] = name_factory(factory, folder)
        except NetworkError as error:
            yield "factory", str(error).removeprefix("factory: ")
            return
    if not isinstance(checkpoint, str):
        return  # nothing to read, or a mistake that validation names
    alone = not {"arch", "factory", "folder"} & section.keys()
    try:
        path = Path(checkpoint).expanduser()
    except RuntimeError:
        yield "checkpoint", f"{checkpoint} starts in the home of a user that this machine does not have."
        return
    if path.suffix != ".safetensors" and path.is_file():
        if alone:
            yield "checkpoint", not_safetensors(path)
        return
    try:
        header = read_header(path)
    except FileNotFoundError:
        if alone:  # otherwise building the network says so
            yield "checkpoint", f"there is no file {path}; write its right place, or run the study that makes it."
        return
    except KeyError:
        if alone:
            yield "arch", f"{path} is a plain state dict that does not name its architecture; write arch yourself."
        return
    except (OSError, SafetensorError) as error:
        if alone:
            yield "checkpoint", f"{path} is damaged or no safetensors file ({error}); make it anew or name another."
        return
    except ValueError as error:
        yield "checkpoint", f"{path} has a damaged header ({error}); make it anew or name another."
        return
    if "head" in header:
        yield "checkpoint", f"{path} ends in another network's classifier (SimKD) and cannot start one; name another."
        return
    if "config" in header:
        yield "checkpoint", f"{path} holds a network of transformers, which starts no other; name its folder instead."
        return
    if alone and not {"arch", "factory"} & header.keys():
        yield "arch", f"the header of {path} does not name its architecture; write arch yourself."
        return
    problems = list(_contradictions(section, header, path))
    if not problems:
        written = section.get("arguments", {})
        own = _FIELDS if alone else set(_FIELDS) - {"arch", "factory"}
        section.update({field: header[field] for field in own if field in header and field not in section})
        if isinstance(written, dict):
            section["arguments"] = header.get("arguments", {}) | written
    yield from problems


def _contradictions(section: Mapping[str, Any], header: Mapping[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    factory = section.get("factory")
    if isinstance(factory, str) and header.get("factory") not in {None, identity(factory)}:
        yield "factory", f"it is another than that of {path}, or its file has changed; leave it out or train anew."
        return
    arch = section.get("arch")
    if isinstance(arch, str) and "arch" in header and arch.partition(".")[0] != header["arch"].partition(".")[0]:
        yield "arch", f"{arch!r} contradicts {path}, which holds a {header['arch']!r}; leave arch out."
        return
    stems = [source.get("stem", "default") for source in (section, header)]
    for field in ("stem", "stem_stride"):
        matters = field == "stem" or "small" in stems
        if matters and field in section and field in header and section[field] != header[field]:
            yield field, f"{section[field]!r} contradicts {path}, which has {header[field]!r}; leave {field} out."
    written = section.get("arguments")
    if isinstance(written, dict) and "arguments" in header:
        for name, value in written.items():
            if "drop" not in name and (name not in header["arguments"] or header["arguments"][name] != value):
                has = f"has {header['arguments'][name]!r}" if name in header["arguments"] else "was made without it"
                yield "arguments", f"{name} = {value!r} contradicts {path}, which {has}; leave {name} out."
