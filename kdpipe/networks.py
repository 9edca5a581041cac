"""Networks: any timm model, a stem for small images, taps on its layers, weights from safetensors.

Layers are read through timm's ``forward_intermediates``. The taps' order is timm's own; the first
tap of a convolutional network is its stem and is left out of ``layers = "stages"``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdpipe.errors import NetworkError

_HEAD = "reused_head."


class Architecture(Protocol):
    """What a network needs to know of a study's teacher or student section."""

    @property
    def arch(self) -> str: ...
    @property
    def arguments(self) -> dict[str, Any]: ...
    @property
    def stem(self) -> str: ...
    @property
    def stem_stride(self) -> int: ...
    @property
    def pretrained(self) -> bool: ...
    @property
    def checkpoint(self) -> str | None: ...
    @property
    def layers(self) -> str | list[str]: ...


@dataclass(frozen=True)
class Outputs:
    """One forward pass of a batch.

    Attributes:
        logits: (B, K) float32.
        maps: the tapped maps, each (B, C, H, W) float32.
        pooled: (B, D) float32, what the classifier takes.
        final: what the head takes before it pools, in the model's own layout and precision.
    """

    logits: Tensor
    maps: list[Tensor]
    pooled: Tensor
    final: Tensor

    def joined(self, more: Outputs) -> Outputs:
        """This batch and another of the same network, one after the other."""
        maps = [torch.cat(parts) for parts in zip(self.maps, more.maps, strict=True)]
        return Outputs(
            torch.cat([self.logits, more.logits]),
            maps,
            torch.cat([self.pooled, more.pooled]),
            torch.cat([self.final, more.final]),
        )

    def logits_alone(self) -> Outputs:
        """For those who read nothing else."""
        return Outputs(self.logits, [], self.logits[:, :0], self.logits[:, :0])


class Network(nn.Module):
    """A timm model with its own input normalisation and its taps.

    ``forward`` takes images in [0, 1], so that networks with different normalisations can share a
    batch, and always goes the way of ``forward_intermediates``, so that a network gives the same
    bits whether or not somebody reads its maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, indices: list[int], names: list[str], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.model, self.indices, self.names = model, indices, names
        self.head: ReusedHead | None = None
        self._seen_by_classifier: list[Tensor] = []
        if isinstance(classifier := self.classifier, nn.Module):
            classifier.register_forward_pre_hook(self._keep)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def classifier(self) -> nn.Module | None:
        """The last linear layer; None for models with several (distilled transformers)."""
        found = self.model.get_classifier()  # type: ignore[operator]
        return found if isinstance(found, nn.Module) and not isinstance(found, nn.ModuleList) else None

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen_by_classifier.append(inputs[0])

    def forward(self, images: Tensor) -> Outputs:
        normalised = (images - self.mean) / self.std
        final, maps = self.model.forward_intermediates(normalised, indices=self.indices)  # type: ignore[operator]
        maps = [part.float() for part in maps]
        if self.head is not None:
            final = self.head.project(self._as_map(final, maps[-1]))
        pooled, logits = self.classify(final)
        return Outputs(logits.float(), maps, pooled.float(), final)

    def classify(self, final: Tensor) -> tuple[Tensor, Tensor]:
        """What the classifier takes, (B, D), and the logits (B, K), from what the head takes."""
        if self.head is not None:
            return self.head.classify(final)
        self._seen_by_classifier.clear()
        logits = self.model.forward_head(final)  # type: ignore[operator]
        seen = self._seen_by_classifier
        pooled = seen.pop().flatten(1) if seen else final.flatten(2).mean(2) if final.ndim == 4 else final.mean(1)
        return pooled, logits

    def as_map(self, final: Tensor, last: Tensor) -> Tensor:
        """What the head takes as (B, C, H, W): tokens are laid out like the last tapped map, prefix tokens dropped."""
        return final if self.head is not None else self._as_map(final, last)

    def _as_map(self, final: Tensor, last: Tensor) -> Tensor:
        if final.ndim == 4:
            nhwc = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return final.permute(0, 3, 1, 2) if nhwc else final
        tokens = final[:, getattr(self.model, "num_prefix_tokens", 0) :]
        return tokens.transpose(1, 2).unflatten(2, last.shape[2:])


Forward = Callable[[Network, Tensor], Outputs]


def forward(network: Network, images: Tensor) -> Outputs:
    return network(images)


@lru_cache
def compiled_forward() -> Forward:
    """A compiled forward pass; networks of one architecture share one compilation, whatever their weights."""
    return torch.compile(forward, dynamic=False)


class ReusedHead(nn.Module):
    """A projector onto another network's last map, and that network's frozen classifier on its mean.

    The projector is SimKD's (Chen et al., 2022): 1x1, 3x3 and 1x1 convolutions, half as wide in between.

    Args:
        channels: of the map that comes in.
        size: (H, W) that maps are pooled to where they are larger.
        width: channels of the other network's last map.
        classes: logits.
    """

    def __init__(self, channels: int, size: tuple[int, int], width: int, classes: int) -> None:
        super().__init__()
        self.config = {"channels": channels, "size": list(size), "width": width, "classes": classes}
        self.size, between = size, width // 2
        self.projector = nn.Sequential(
            *_convolution(channels, between, 1),
            *_convolution(between, between, 3),
            *_convolution(between, width, 1),
        )
        self.classifier = nn.Linear(width, classes).requires_grad_(False)

    def project(self, final: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, at most size)."""
        height, width = (min(own, wanted) for own, wanted in zip(final.shape[2:], self.size, strict=True))
        return self.projector(nn.functional.adaptive_avg_pool2d(final, (height, width)))

    def classify(self, final: Tensor) -> tuple[Tensor, Tensor]:
        pooled = final.mean((2, 3))
        return pooled, self.classifier(pooled)


def _convolution(channels: int, width: int, kernel: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def build(
    spec: Architecture,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    weights: bool = True,
) -> Network:
    """Make the network of a teacher or student section.

    Args:
        mean, std: of the dataset's channels; pretrained weights, and networks of another study, bring
            their own instead.
        seed: of the initial weights. The global random state is left as it was.
        weights: False skips ``pretrained`` and ``checkpoint``, for those who want shapes alone.

    Raises:
        NetworkError: an unknown name, unfit arguments, no taps, unreadable weights.
    """
    with _seeded(seed):
        model = _create(spec, image_shape, classes, weights)
        if spec.stem == "small":
            _small_stem(model, spec)
    indices, names = _choose_taps(model, spec)
    config = getattr(model, "pretrained_cfg", {}) if spec.pretrained else {}
    if _as_it_comes(spec) and config.get("num_classes", classes) != classes:
        raise NetworkError(
            f"pretrained: the weights of {spec.arch!r} tell {config['num_classes']} classes apart, the data has "
            f"{classes}, so the classifier would be new and untrained; give it steps (training.steps)."
        )
    if weights and spec.checkpoint is not None:
        with suppress(OSError, SafetensorError, KeyError, ValueError):  # a plain state dict says nothing of it
            config = read_header(Path(spec.checkpoint).expanduser())
    if len(config.get("mean", ())) == image_shape[0]:
        mean, std = config["mean"], config["std"]
    network = Network(model, indices, names, mean, std)
    if weights and spec.checkpoint is not None:
        load_weights(network, Path(spec.checkpoint).expanduser(), head=_as_it_comes(spec))
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *image_shape))
    except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NetworkError(
            f"arch: {spec.arch!r} cannot take images of shape {image_shape}: {reason}. Transformers want "
            "arguments such as img_size and patch_size."
        ) from None
    return network


@contextmanager
def _seeded(seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _create(spec: Architecture, image_shape: tuple[int, int, int], classes: int, weights: bool) -> nn.Module:
    if not timm.is_model(spec.arch):
        near = difflib.get_close_matches(spec.arch, timm.list_models(), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise NetworkError(f"arch: timm {timm.__version__} has no model {spec.arch!r}{hint}")
    try:
        return timm.create_model(
            spec.arch,
            pretrained=spec.pretrained and weights,
            num_classes=classes,
            in_chans=image_shape[0],
            **spec.arguments,
        )
    except OSError as error:  # first, as the hub's "not in the cache" is a ValueError too
        reason = str(error).split(". ")[0].splitlines()[0]
        raise NetworkError(
            f"pretrained: the weights of {spec.arch!r} cannot be fetched ({reason}); name a file under checkpoint."
        ) from None
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise NetworkError(f"arguments: {spec.arch!r} cannot be built with {spec.arguments}: {error}") from None


_POOLS = ("maxpool", "stem.pool", "features.pool0")


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
    _replace(model, name, small)
    for pool in _POOLS:
        if _submodule(model, pool) is not None:
            _replace(model, pool, nn.Identity())


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


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
    return name in {"act1", "bn1", "conv1", "conv_stem", "features.norm0"} or name.startswith("stem")


# ------------------------------------------------------------------------------------------ weights


@dataclass(frozen=True)
class SavedArchitecture:
    """An :class:`Architecture` as it stands in the header of a safetensors file."""

    arch: str
    arguments: dict[str, Any]
    stem: str
    stem_stride: int
    layers: str | list[str]
    pretrained: bool = False
    checkpoint: str | None = None


def write_network(
    path: Path, network: Network, spec: Architecture, image_shape: tuple[int, int, int], classes: int
) -> None:
    """Write a network as safetensors; its header says how to build it, so that it loads from the file alone."""
    header = {
        "arch": spec.arch,
        "arguments": spec.arguments,
        "stem": spec.stem,
        "stem_stride": spec.stem_stride,
        "layers": spec.layers,
        "image_shape": list(image_shape),
        "classes": classes,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        **({} if network.head is None else {"head": network.head.config}),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in _own_state(network).items()}
    save_file(state, path, {"kdpipe": json.dumps(header)})


def read_header(path: str | Path) -> dict[str, Any]:
    """What a safetensors file of kdpipe says about its network.

    Raises:
        OSError, SafetensorError: not a safetensors file.
        KeyError: a safetensors file without such a header.
        ValueError: a header that makes no sense.
    """
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})["kdpipe"])
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    for field, kind in {"arch": str, "arguments": dict, "mean": list, "std": list}.items():
        if not isinstance(header.get(field, kind()), kind):
            raise ValueError(f"its header's {field} is {header[field]!r}")
    mean, std = header.get("mean", []), header.get("std", [])
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in [*mean, *std])
    if len(mean) != len(std) or not numbers or any(value <= 0 for value in std):
        raise ValueError(f"its header's mean {mean} and std {std} do not scale images")
    return header


def read_network(path: str | Path) -> Network:
    """A trained network of a study, in eval mode; it takes images in [0, 1] and returns :class:`Outputs`.

    Raises:
        NetworkError: not a safetensors file that kdpipe wrote.
    """
    try:
        header = read_header(path)
        shape, classes = tuple(header.pop("image_shape")), header.pop("classes")
        mean, std = header.pop("mean"), header.pop("std")
        head = header.pop("head", None)
        spec = SavedArchitecture(**header)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise NetworkError(f"{path}: not a network that kdpipe wrote ({error}).") from None
    network = build(spec, image_shape=shape, classes=classes, mean=mean, std=std, seed=0, weights=False)
    if head is not None:
        give_head(network, ReusedHead(head["channels"], tuple(head["size"]), head["width"], head["classes"]))
    load_weights(network, Path(path), head=True)
    return network.eval()


def give_head(network: Network, head: ReusedHead) -> None:
    """Let a network end in another's classifier; its own is removed."""
    network.model.reset_classifier(0)  # type: ignore[operator]
    network.head = head


def _own_state(network: Network) -> dict[str, Tensor]:
    """All weights, those of a reused head under a prefix of their own."""
    head = network.head.state_dict() if network.head is not None else {}
    return {**network.model.state_dict(), **{f"{_HEAD}{name}": tensor for name, tensor in head.items()}}


def load_weights(network: Network, path: Path, *, head: bool = False) -> None:
    """Load a timm state dict from a local safetensors file.

    Args:
        head: whether the classifier must be there and fit, as in a network that is not trained any more;
            otherwise one of another size, or none at all, leaves the network's own.

    Raises:
        NetworkError: not safetensors, missing, or tensors that do not fit.
    """
    if path.suffix != ".safetensors":
        raise NetworkError(
            f"checkpoint: {path} is not a .safetensors file; pickled checkpoints can run code when loaded, "
            "convert it first (safetensors.torch.save_file(model.state_dict(), ...))."
        )
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise NetworkError(f"checkpoint: there is no file {path}.") from None
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"checkpoint: {path} is damaged or no safetensors file ({error}).") from None
    own = _own_state(network)
    _refuse_other_channels(network, own, state, path)
    named = getattr(network.model, "pretrained_cfg", {}).get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
    remedy = "use the architecture and arguments it was saved with."
    untrained = "so the classifier would be new and untrained; train it (training.steps) or name another checkpoint."
    for name in list(state):
        if name not in own or state[name].shape == own[name].shape:
            continue
        if name.startswith(classifiers) and not head:
            del state[name]
            continue
        raise NetworkError(
            f"checkpoint: {path}: {name} has shape {tuple(state[name].shape)}, the network "
            f"{tuple(own[name].shape)}{f', {untrained}' if name.startswith(classifiers) else f'; {remedy}'}"
        )
    missing = [name for name in own if name not in state and (head or not name.startswith(classifiers))]
    if missing:
        why = f", {untrained}" if missing[0].startswith(classifiers) else f"; {remedy}"
        raise NetworkError(f"checkpoint: {path} lacks {missing[0]}{why}")
    if unknown := [name for name in state if name not in own]:
        raise NetworkError(f"checkpoint: {path} has {unknown[0]}, which the network has not; {remedy}")
    network.model.load_state_dict({n: t for n, t in state.items() if not n.startswith(_HEAD)}, strict=False)
    if network.head is not None:
        network.head.load_state_dict({n.removeprefix(_HEAD): t for n, t in state.items() if n.startswith(_HEAD)})


def _refuse_other_channels(network: Network, own: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> None:
    name = f"{getattr(network.model, 'pretrained_cfg', {}).get('first_conv')}.weight"
    if name in own and name in state and own[name].ndim == state[name].ndim == 4:
        mine, its = own[name].shape, state[name].shape
        if mine[1] != its[1] and (mine[0], *mine[2:]) == (its[0], *its[2:]):
            raise NetworkError(
                f"checkpoint: {path} takes images of {its[1]} channels and the study's have {mine[1]}; "
                f"set data.channels = {its[1]} or name another checkpoint."
            )


def _as_it_comes(spec: Architecture) -> bool:
    """Whether a network is used without training of its own: a teacher with no steps."""
    return getattr(getattr(spec, "training", None), "steps", None) == 0
