"""Conversion: a checkpoint from anywhere, made a file that a study takes as ``checkpoint``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from torch import Tensor

from kdpipe.errors import NetworkError
from kdpipe.files import new_file
from kdpipe.models.build import build
from kdpipe.models.factories import identity, name_factory
from kdpipe.models.fit import Fit, compare, covered, not_finite
from kdpipe.models.network import Network
from kdpipe.models.origins import origin_of
from kdpipe.models.saved import SavedArchitecture, write_network
from kdpipe.models.state_dicts import Reading, choose, fits_alike, listed, read_network_of
from kdpipe.models.tensor_files import read_tensors
from kdpipe.models.weights import read_header


@dataclass(frozen=True)
class Scaling:
    """How pixels in [0, 1] are scaled before the network sees them, and who says so."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = "as given"


@dataclass(frozen=True)
class Conversion:
    """A checkpoint held against an architecture, and the network with what fits.

    Attributes:
        network: in eval mode; tensors that are allowed to be missing have fresh values.
        spec: how it is built, as the written file will say.
        image_shape: (C, H, W) of the images that the file will name.
        classes: logits.
        scaling: of its input.
        reading: what was taken from the file.
        others: keys of further networks of this architecture in the file.
        problem: why no file can be written, as one sentence; None if one can.
        fresh: names of tensors that the file does not give.
    """

    network: Network
    spec: SavedArchitecture
    image_shape: tuple[int, int, int]
    classes: int
    scaling: Scaling
    reading: Reading
    others: tuple[str, ...]
    problem: str | None
    fresh: tuple[str, ...]

    @property
    def fit(self) -> Fit:
        """How the file's tensors lie in the network."""
        return self.reading.fit

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the classifier's tensors that the file does not give."""
        return tuple(name for name in self.fresh if covered(name, self.network.classifier_names))

    def write(self, path: Path) -> None:
        """Write the network as :func:`kdpipe.models.read_network` and a study's ``checkpoint`` read it.

        A classifier that the file did not give is left out, so that no study takes it for a trained one.

        Raises:
            NetworkError: something that matters is missing, or no file of that name can be read again.
            OSError: the disk does not take it.
        """
        if self.problem is not None:
            raise NetworkError(self.problem)
        if path.suffix != ".safetensors":
            raise NetworkError(f"{path} must end in .safetensors, or no study could read it.")
        with new_file(path) as unfinished:
            write_network(
                unfinished, self.network, self.spec, self.image_shape, self.classes, without=set(self.untrained)
            )


def convert(
    file: str | Path,
    arch: str | None = None,
    *,
    factory: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    stem: str = "default",
    stem_stride: int = 2,
    classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    scaling: Scaling | None = None,
    key: str | None = None,
    ema: bool = False,
    allow_missing: Collection[str] = (),
    allow_extra: Collection[str] = (),
) -> Conversion:
    """Hold a checkpoint of any origin against a timm architecture or a network of one's own, and load what fits.

    The file is read as tensors alone; nothing of it is executed. Within it the network is searched for: under keys
    (``model``, ``state_dict``, ...), behind prefixes (DataParallel's ``module.``, torch.compile's ``_orig_mod.``,
    Lightning's ``model.``, whatever is there), under the names of timm, older timm, torchvision, transformers and
    efficientnet_pytorch. Nothing is written: see :meth:`Conversion.write`.

    >>> from kdpipe.models import convert
    >>> convert("best.pth", "resnet18", stem="small", stem_stride=1).write(Path("best.safetensors"))  # doctest: +SKIP

    Args:
        file: of ``torch.save``, safetensors, or an index of shards.
        arch: a name of timm.
        factory: ``file.py:function`` that makes the network, instead of ``arch``. Nobody else knows of it: ``classes``,
            ``image_size`` and ``scaling`` must be given.
        arguments: of timm's model or of the factory, as in a study file.
        stem, stem_stride: as in a study file. No tensor's shape tells the stride.
        classes: logits; by default those of the file.
        image_size: of the images that the file will name, or (H, W); by default timm's for the architecture.
        scaling: of the input; by default what the file says (one of kdpipe's), or timm for the architecture.
        key: what the network's names begin with in the file.
        ema: take averaged weights; otherwise raw ones are preferred.
        allow_missing: modules or tensors that may be missing or have another shape; they get fresh values.
        allow_extra: modules or tensors of the file that the network does not have and that do not matter.

    Raises:
        NetworkError: the file cannot be read safely, holds no or several such networks; the architecture cannot be
            built; not exactly one of ``arch`` and ``factory``.
    """
    if (arch is None) == (factory is None):
        raise NetworkError("convert: a network has either a timm name (arch) or a function that makes it (factory).")
    path = Path(file).expanduser()
    tensors = _under(key, read_tensors(path), path)
    if factory is not None:
        if classes is None or image_size is None or scaling is None:
            raise NetworkError(
                f"convert: nobody but you knows what {factory} was trained on; give the number of classes, the size of "
                "its images, and the mean and std that they were scaled by."
            )
        factory = identity(name_factory(factory))
    spec = SavedArchitecture(arch, dict(arguments or {}), stem, stem_stride, "stages", factory=factory)
    channels = 3 if scaling is None else len(scaling.mean)
    shape, usual = usual_shape(arch) if arch else (channels, 224, 224), _usual_classes(arch) if arch else 0
    if size := image_size or spec.arguments.get("img_size"):
        shape = (shape[0], *((size, size) if isinstance(size, int) else size))
    network = _built(spec, shape, classes or usual)
    readings = read_network_of(tensors, network.model, arch)
    try:
        reading = choose(readings, averaged=ema)
    except NetworkError as error:
        raise NetworkError(f"{path} {error}") from None
    others = tuple(one.key for one in readings if one is not reading and fits_alike(one, reading))
    spec = replace(spec, arguments=reading.arguments | spec.arguments)
    shape = (_channels(reading, network) or shape[0], *shape[1:])
    counted = classes or _classes(reading, network) or usual
    chosen = scaling or _scaling(path, network, shape[0])
    network = _built(spec, shape, counted, chosen)
    reading = replace(reading, fit=compare(reading.state, network.model.state_dict()))
    fresh = (*reading.fit.missing, *(misfit.name for misfit in reading.fit.misfits))
    problem = _problem(path, network, spec, reading, allow_missing, allow_extra)
    if problem is None:
        given = set(network.model.state_dict()) - set(fresh)
        network.model.load_state_dict({n: t for n, t in reading.state.items() if n in given}, strict=False)
    return Conversion(network.eval(), spec, shape, counted, chosen, reading, others, problem, fresh)


def _under(key: str | None, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors whose names begin with a key."""
    if key is None:
        return tensors
    under = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{key.rstrip('.')}.")}
    if not under:
        first = dict.fromkeys(name.partition(".")[0] for name in tensors)
        raise NetworkError(f"{path} holds nothing under {key!r}; its names begin with {listed([*first][:10])}.")
    return under


def usual_shape(arch: str) -> tuple[int, int, int]:
    """(C, H, W) of the images that an architecture is for, by timm."""
    known = _known(arch)
    return known.input_size if known else (3, 224, 224)


def _usual_classes(arch: str) -> int:
    known = _known(arch)
    return known.num_classes if known else 1000


def _known(arch: str) -> Any:
    return timm.models.get_pretrained_cfg(arch, allow_unregistered=True) if timm.is_model(arch) else None


def _built(
    spec: SavedArchitecture, shape: tuple[int, int, int], classes: int, scaling: Scaling | None = None
) -> Network:
    mean, std = (scaling.mean, scaling.std) if scaling else ((0.5,) * shape[0], (0.5,) * shape[0])
    if not len(mean) == len(std) == shape[0]:
        raise NetworkError(
            f"mean and std: {len(mean)} and {len(std)} numbers are given, and the network's images have {shape[0]} "
            "channels; give one of each for every channel."
        )
    return build(spec, image_shape=shape, classes=classes, mean=mean, std=std, seed=0)


def _weight(reading: Reading, module: object) -> Tensor | None:
    return reading.state.get(f"{module}.weight")


def _classes(reading: Reading, network: Network) -> int | None:
    """The number of classes of the file's classifier."""
    weights = (_weight(reading, name) for name in network.classifier_names)
    return next((len(weight) for weight in weights if weight is not None and weight.ndim >= 2), None)


def _channels(reading: Reading, network: Network) -> int | None:
    """The number of channels of the images that the file's first convolution takes."""
    first = getattr(network.model, "pretrained_cfg", {}).get("first_conv")
    weight = _weight(reading, first)
    return weight.shape[1] if weight is not None and weight.ndim == 4 else None


def _scaling(path: Path, network: Network, channels: int) -> Scaling:
    """The scaling that a file of kdpipe names, else timm's for the architecture.

    Raises:
        NetworkError: timm's is for another number of channels.
    """
    with suppress(OSError, SafetensorError, KeyError, ValueError):
        header = read_header(path)
        return Scaling(tuple(header["mean"]), tuple(header["std"]), "as the file says")
    usual = getattr(network.model, "pretrained_cfg", {})
    mean, std = tuple(usual.get("mean", ())), tuple(usual.get("std", ()))
    if len(mean) != channels:
        raise NetworkError(
            f"mean and std: {path} takes images of {channels} channels, for which timm names no scaling; give those of "
            "its training."
        )
    return Scaling(mean, std, "timm's for this architecture, as none was given")


def _problem(
    path: Path,
    network: Network,
    spec: SavedArchitecture,
    reading: Reading,
    allow_missing: Collection[str],
    allow_extra: Collection[str],
) -> str | None:
    """What stands in the way of a file, with the remedy that fits best."""
    fit = reading.fit
    missing = [name for name in fit.missing if not covered(name, allow_missing)]
    misfits = [misfit for misfit in fit.misfits if not covered(misfit.name, allow_missing)]
    extra = [name for name in fit.left_over if not covered(name, allow_extra)]
    said = []
    if missing:
        said.append(f"{len(missing)} of {fit.tensors} tensors missing ({_some(missing)})")
    if misfits:
        one = misfits[0]
        said.append(f"{len(misfits)} of another shape ({one.name}: {one.theirs}, not {one.own})")
    if extra:
        said.append(f"{len(extra)} left over ({_some(extra)})")
    if said:
        wrong = [*missing, *(misfit.name for misfit in misfits)]
        return f"{path} does not fit {origin_of(spec)}: {', '.join(said)}; {_remedy(network, spec, fit, wrong, extra)}."
    if broken := not_finite({name: reading.state[name] for name in fit.fitting}):
        return f"{path} holds NaN or infinity in {broken}; take other weights."
    return None


def _remedy(network: Network, spec: SavedArchitecture, fit: Fit, wrong: Sequence[str], extra: Sequence[str]) -> str:
    """What to do about tensors that are missing or misfit (``wrong``), and those left over."""
    first = f"{getattr(network.model, 'pretrained_cfg', {}).get('first_conv')}.weight"
    classifiers = network.classifier_names
    if (
        first in wrong
        and spec.stem == "default"
        and any(m.name == first and m.theirs.endswith(" 3, 3)") for m in fit.misfits)
    ):
        return "its first convolution is one for small images: add --stem small and its --stem-stride"
    if not wrong:
        return f"name the architecture that has them, or, where they are no part of it, add --allow-extra {extra[0]}"
    if not extra and all(covered(name, classifiers) for name in wrong):
        new = next(name for name in classifiers if covered(wrong[0], [name]))
        return f"give the file's own --classes, or ask for a new classifier: --allow-missing {new}"
    return "name the architecture and the arguments that it was trained with"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (", …" if len(names) > 2 else "")
