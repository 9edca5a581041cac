"""timm's models for a study: built from a name, their stem made fit for small images, their taps chosen."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import timm
import torch
from torch import nn

from kdpipe.errors import NetworkError
from kdpipe.models.limits import TooLargeError, limited, refuse_arguments, refuse_size
from kdpipe.models.literature import published_as
from kdpipe.models.network import Architecture


def timm_model(
    spec: Architecture, shape: tuple[int, int, int], classes: int, seed: int, *, weights: bool
) -> tuple[nn.Module, list[int], list[str]]:
    """A model of timm, the indices of its taps for ``forward_intermediates``, and their modules' names.

    Args:
        shape: (C, H, W) of the images that it takes.
        weights: whether pretrained weights are asked for.

    Raises:
        NetworkError: an unknown name, unfit arguments, too large, no taps, weights that cannot be fetched.
    """
    assert spec.arch is not None
    _refuse_unknown(spec.arch)
    refuse_arguments(spec.arguments)
    with _words_for(spec, "arguments" if spec.arguments else "arch"):
        with seeded(0):
            refuse_size(lambda: _create(spec, shape, classes, weights=False), shape)
        with seeded(seed), limited():
            model = _create(spec, shape, classes, weights)
        indices, names = _choose_taps(model, spec)
    config = getattr(model, "pretrained_cfg", {}) if spec.pretrained else {}
    if spec.as_it_comes and config.get("num_classes", classes) != classes:
        raise NetworkError(
            f"pretrained: the weights of {spec.arch!r} tell {config['num_classes']} classes apart, the data has "
            f"{classes}, so the classifier would be new and untrained; give it steps (training.steps)."
        )
    return model, indices, names


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed; the global state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _refuse_unknown(arch: str) -> None:
    if not timm.is_model(arch):
        near = published_as(arch) or difflib.get_close_matches(arch, timm.list_models(), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise NetworkError(f"arch: timm {timm.__version__} has no model {arch!r}{hint}")


@contextmanager
def _words_for(spec: Architecture, field: str) -> Iterator[None]:
    """Turn whatever timm raises at arguments that do not fit a model into a NetworkError that names the field."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, about layers of no width and the like
            yield
    except TooLargeError as error:
        raise NetworkError(f"{field}: {spec.arch!r} {error}") from None
    except NetworkError:
        raise
    except OSError as error:
        raise NetworkError(
            f"pretrained: the weights of {spec.arch!r} cannot be fetched ({reason(error).split('. ')[0]}); name a file "
            "under checkpoint."
        ) from None
    except Exception as error:
        raise NetworkError(f"{field}: {spec.arch!r} cannot be built with {spec.arguments}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """The first line of what a library says."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _create(spec: Architecture, image_shape: tuple[int, int, int], classes: int, weights: bool) -> nn.Module:
    assert spec.arch is not None, "such a section names timm's model"
    model = timm.create_model(
        spec.arch,
        pretrained=spec.pretrained and weights,
        num_classes=classes,
        in_chans=image_shape[0],
        **spec.arguments,
    )
    if spec.stem == "small":
        _small_stem(model, spec)
    return model


STEM_POOLS = ("maxpool", "stem.pool", "features.pool0")


def _small_stem(model: nn.Module, spec: Architecture) -> None:
    """Replace the first convolution by a 3x3 of the given stride, and drop the pooling after it."""
    name = getattr(model, "pretrained_cfg", {}).get("first_conv")
    conv = _submodule(model, name) if isinstance(name, str) else None
    if type(conv) is not nn.Conv2d or conv.kernel_size == conv.stride:
        raise NetworkError(
            f"stem: {spec.arch!r} has no plain convolutional stem to make small; leave stem at 'default' "
            "(transformers: set patch_size and img_size under arguments)."
        )
    small = nn.Conv2d(
        conv.in_channels, conv.out_channels, 3, stride=spec.stem_stride, padding=1, bias=conv.bias is not None
    )
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    assert isinstance(name, str)
    model.set_submodule(name, small)
    for pool in STEM_POOLS:
        if _submodule(model, pool) is not None:
            model.set_submodule(pool, nn.Identity())


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _choose_taps(model: nn.Module, spec: Architecture) -> tuple[list[int], list[str]]:
    """Indices for ``forward_intermediates`` and their module names."""
    info = getattr(model, "feature_info", None)
    if not hasattr(model, "forward_intermediates") or not info:
        raise NetworkError(f"arch: {spec.arch!r} does not offer forward_intermediates in timm {timm.__version__}.")
    entries = info.info if hasattr(info, "info") else info
    offered = [entry["module"] or f"stage{number}" for number, entry in enumerate(entries)]
    if spec.layers == "all":
        return list(range(len(offered))), offered
    if spec.layers == "stages":
        chosen = [i for i, entry in enumerate(offered) if not _is_stem(entry)]
        return chosen, [offered[i] for i in chosen]
    for name in spec.layers:
        if name not in offered:
            near = difflib.get_close_matches(name, offered, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise NetworkError(f"layers: {spec.arch!r} has no layer {name!r}{hint}; it has {', '.join(offered)}.")
    chosen = sorted(offered.index(name) for name in set(spec.layers))
    return chosen, [offered[i] for i in chosen]


def _is_stem(name: str) -> bool:
    return name in {"act1", "block0", "bn1", "conv1", "conv_stem", "features.norm0"} or name.startswith("stem")
