"""Networks: any timm model, a stem for small images, taps on its layers, weights from safetensors.

Layers are read through timm's ``forward_intermediates``. The taps' order is timm's own; the first
tap of a convolutional network is its stem and is left out of ``layers = "stages"``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdpipe.errors import NetworkError


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
class Tap:
    """A layer that is looked at.

    Attributes:
        layer: timm's module name.
        order: position among the taps, from 0.
        relative_depth: order / (taps - 1), in [0, 1].
        mac_share: share of the network's MACs spent up to and including it; None where unknown.
        shape: (C, H, W) of its map.
    """

    layer: str
    order: int
    relative_depth: float
    mac_share: float | None
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Outputs:
    """One forward pass: logits (B, K), and the tapped maps (B, C, H, W), both float32."""

    logits: Tensor
    maps: list[Tensor]

    def rows(self, count: int) -> Outputs:
        """The first ``count`` images of the batch."""
        return Outputs(self.logits[:count], [part[:count] for part in self.maps])


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
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Outputs:
        normalised = (images - self.mean) / self.std
        final, maps = self.model.forward_intermediates(normalised, indices=self.indices)  # type: ignore[operator]
        logits = self.model.forward_head(final)  # type: ignore[operator]
        return Outputs(logits.float(), [part.float() for part in maps])


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
        mean, std: of the dataset's channels; pretrained weights bring their own instead.
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
    if len(config.get("mean", ())) == image_shape[0]:
        mean, std = config["mean"], config["std"]
    network = Network(model, indices, names, mean, std)
    if weights and spec.checkpoint is not None:
        load_weights(network, Path(spec.checkpoint).expanduser())
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *image_shape))
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError) as error:
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
        raise NetworkError(
            f"pretrained: the weights of {spec.arch!r} cannot be fetched ({error}); name a local file under checkpoint."
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
    offered = [entry["module"] for entry in (info.info if hasattr(info, "info") else info)]
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


# ------------------------------------------------------------------------------------ what it costs


def tap_table(network: Network, image_shape: tuple[int, int, int]) -> tuple[list[Tap], int]:
    """The taps with their shapes and cumulative MAC shares, and the MACs of one image.

    MACs are half of the FLOPs that ``torch.utils.flop_counter`` counts (convolutions and matrix
    products; norms and activations are free there).
    """
    spent: dict[str, int] = {}
    hooks = []
    # Attention in its plain form: the counter does not see into the CPU's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        for name in network.names:

            def record(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
                spent[name] = counter.get_total_flops()

            hooks.append(network.model.get_submodule(name).register_forward_hook(record))
        device = network.mean.device
        outputs = network.eval()(torch.zeros(1, *image_shape, device=device))
        total = counter.get_total_flops()
    for hook in hooks:
        hook.remove()
    last = max(len(network.names) - 1, 1)
    taps = [
        Tap(
            layer=name,
            order=order,
            relative_depth=order / last,
            mac_share=spent[name] / total if name in spent and total else None,
            shape=(int(part.shape[1]), int(part.shape[2]), int(part.shape[3])),
        )
        for order, (name, part) in enumerate(zip(network.names, outputs.maps, strict=True))
    ]
    return taps, total // 2


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def pair_by_depth(student: Sequence[Tap], teacher: Sequence[Tap]) -> list[int]:
    """For each student tap, the index of the teacher tap nearest in relative depth (earlier on ties).

    Depths are compared as integers, order x (taps - 1) of the other, as thirds and halves of floats tie by luck.
    """
    own, others = max(len(student) - 1, 1), max(len(teacher) - 1, 1)
    return [min(range(len(teacher)), key=lambda j: abs(j * own - tap.order * others)) for tap in student]


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
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.model.state_dict().items()}
    save_file(state, path, {"kdpipe": json.dumps(header)})


def read_network(path: str | Path) -> Network:
    """A trained network of a study, in eval mode; it takes images in [0, 1] and returns :class:`Outputs`.

    Raises:
        NetworkError: not a safetensors file that kdpipe wrote.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["kdpipe"])
        shape, classes = tuple(header.pop("image_shape")), header.pop("classes")
        mean, std = header.pop("mean"), header.pop("std")
        spec = SavedArchitecture(**header)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise NetworkError(f"{path}: not a network that kdpipe wrote ({error}).") from None
    network = build(spec, image_shape=shape, classes=classes, mean=mean, std=std, seed=0, weights=False)
    load_weights(network, Path(path), head=True)
    return network.eval()


def load_weights(network: Network, path: Path, *, head: bool = False) -> None:
    """Load a timm state dict from a local safetensors file.

    Args:
        head: whether the classifier must be there and fit; otherwise one of another size, or none at
            all, leaves the network's own.

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
    own = network.model.state_dict()
    classifier = getattr(network.model, "pretrained_cfg", {}).get("classifier") or ()
    heads = () if head else (classifier,) if isinstance(classifier, str) else tuple(classifier)
    is_head = tuple(f"{name}." for name in heads)
    for name in list(state):
        if name in own and state[name].shape != own[name].shape:
            if name.startswith(is_head):
                del state[name]
                continue
            raise NetworkError(
                f"checkpoint: {path}: {name} has shape {tuple(state[name].shape)}, "
                f"the network {tuple(own[name].shape)}; use the architecture and arguments it was saved with."
            )
    missing = [name for name in own if name not in state and not name.startswith(is_head)]
    if missing or (unknown := [name for name in state if name not in own]):
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which the network has not"
        raise NetworkError(f"checkpoint: {path} {what}; use the architecture and arguments it was saved with.")
    network.model.load_state_dict(state, strict=False)
