"""Image classifiers of Hugging Face's transformers, from a folder on this machine: nothing is fetched, no code is run.

A folder is what ``save_pretrained`` writes: ``config.json``, ``*.safetensors`` and, if there is one,
``preprocessor_config.json``, which says how large its images are and how they are normalised.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kdpipe.errors import NetworkError
from kdpipe.files import sha256_of
from kdpipe.models.network import Architecture
from kdpipe.user_code import in_one_line

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class Folder:
    """What a folder says of its network.

    Attributes:
        config: transformers' description.
        image_size: side of the images that it takes; None where the folder does not say.
        mean, std: of images in [0, 1]; empty where the folder does not say.
    """

    path: Path
    config: dict[str, Any]
    image_size: int | None
    mean: Sequence[float]
    std: Sequence[float]

    @property
    def input(self) -> dict[str, Any]:
        """What the network wants of its images, as the header of a saved network says it."""
        return {"image_size": self.image_size, "mean": self.mean, "std": self.std}


def read_folder(path: Path) -> Folder:
    """Read what a folder says, and refuse what cannot be loaded safely and alone.

    Raises:
        NetworkError: transformers is not installed, or the folder holds no image classifier as safetensors.
    """
    if not path.is_dir():
        raise NetworkError(f"folder: there is no folder {path}; nothing is fetched, so download it first.")
    config, processing = _json(path / CONFIG), _json(path / PREPROCESSOR, {})
    for name, described in ((CONFIG, config), (PREPROCESSOR, processing)):
        if "auto_map" in described:
            raise NetworkError(
                f"folder: {path / name} brings code of its own (auto_map), which is not run; write the network into a "
                "file that you trust and name it as a factory."
            )
    refuse_config(config, f"{path / CONFIG}")
    if not list(path.glob("*.safetensors")):
        raise NetworkError(
            f"folder: {path} holds no .safetensors file; pickled weights can run code when loaded: save the model "
            "again with save_pretrained, which writes safetensors."
        )
    mean, std = _scaling(processing, path)
    return Folder(path, config, _side(processing) or _whole(config.get("image_size")), mean, std)


def content_of(path: Path) -> str:
    """Hex sha256 of what a folder's network depends on."""
    digest = hashlib.sha256()
    for file in sorted([*path.glob("*.json"), *path.glob("*.safetensors")]):
        if file.name in {CONFIG, PREPROCESSOR} or ".safetensors" in file.name:
            digest.update(f"{file.name}={sha256_of(file)}\n".encode())
    return digest.hexdigest()


def refuse_config(config: dict[str, Any], where: str) -> None:
    """Raise NetworkError unless transformers itself has an image classifier of this kind."""
    if importlib.util.find_spec("transformers") is None:
        raise NetworkError("folder: this needs transformers, which is not installed: pip install 'kdpipe[hf]'.")
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as NAMES

    kind = config.get("model_type")
    if kind not in NAMES:
        raise NetworkError(
            f"folder: {where} describes a {kind!r}, of which the installed transformers has no image classifier."
        )
    for name in ("auto_map", "quantization_config"):
        if config.get(name):
            raise NetworkError(f"folder: {where} has {name}, which is not supported; save the plain model.")


def description(spec: Architecture) -> dict[str, Any]:
    """Transformers' description of a section's network: of its folder, or as it stands in a saved network."""
    saved = getattr(spec, "config", None)
    if saved is not None:
        return dict(saved)
    assert spec.folder is not None, "a section says what it is"
    return read_folder(Path(spec.folder).expanduser()).config


def model_of(config: dict[str, Any], classes: int) -> nn.Module:
    """The network of a description, with new weights.

    Raises:
        NetworkError: the description makes no sense.
    """
    refuse_config(config, "the description")
    from transformers import AutoModelForImageClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        described = CONFIG_MAPPING[config["model_type"]].from_dict(_for_classes(config, classes))
        return AutoModelForImageClassification.from_config(described, trust_remote_code=False)
    except NetworkError:
        raise
    except Exception as error:  # transformers raises many types at descriptions that make no sense
        raise NetworkError(f"folder: its network cannot be built: {in_one_line(error)}") from None


def load(folder: Folder, classes: int, *, head: bool) -> nn.Module:
    """The network of a folder with its weights.

    Args:
        head: whether the classifier must be there and fit; otherwise one of other classes is made anew.

    Raises:
        NetworkError: weights that are missing, left over, damaged or do not fit.
    """
    from transformers import AutoModelForImageClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    own = _classes(folder.config)
    if head and own != classes:
        raise NetworkError(
            f"folder: the network of {folder.path} tells {own} classes apart, the data has {classes}, so the "
            "classifier would be new and untrained."
        )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForImageClassification.from_pretrained(
            folder.path,
            config=CONFIG_MAPPING[folder.config["model_type"]].from_dict(_for_classes(folder.config, classes)),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many types at files that do not fit
        raise NetworkError(f"folder: {folder.path} cannot be loaded: {in_one_line(error)}") from None
    lacking = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if not head:
        lacking = {name for name in lacking if "classifier" not in name and "head" not in name.split(".")}
    if lacking:
        raise NetworkError(
            f"folder: the weights of {folder.path} lack {min(lacking)}, or have it in another shape, so it would be "
            "new and untrained; save the whole classifier (save_pretrained)."
        )
    return model


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if default is not None:
            return default
        raise NetworkError(f"folder: {path} is not there; name the folder that save_pretrained wrote.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise NetworkError(f"folder: {path} cannot be read ({in_one_line(error)}).") from None
    if not isinstance(described, dict):
        raise NetworkError(f"folder: {path} is no table.")
    return described


def _classes(config: dict[str, Any]) -> int:
    named = config.get("id2label")
    return len(named) if isinstance(named, dict) else int(config.get("num_labels", 2))  # transformers' own default


def _for_classes(config: dict[str, Any], classes: int) -> dict[str, Any]:
    """A description with a classifier of so many classes."""
    if _classes(config) == classes:
        return dict(config)
    return {name: value for name, value in config.items() if name not in {"id2label", "label2id"}} | {
        "num_labels": classes
    }


def _whole(value: Any) -> int | None:
    """A side that a description gives as a number, or as two equal ones."""
    sides = value if isinstance(value, list) else [value]
    return sides[0] if type(sides[0]) is int and len(set(sides)) == 1 else None


def _side(processing: dict[str, Any]) -> int | None:
    """The side of images after resizing and cropping; None where they stay as they are."""
    for flag, field in (("do_center_crop", "crop_size"), ("do_resize", "size")):
        size = processing.get(field)
        if not processing.get(flag) or size is None:
            continue
        if isinstance(size, dict):
            size = size.get("shortest_edge") or [size.get("height"), size.get("width")]
        return _whole(size)
    return None


def _scaling(processing: dict[str, Any], path: Path) -> tuple[list[float], list[float]]:
    """Mean and std of images in [0, 1], as the description scales those in [0, 255]."""
    if processing.get("do_flip_channel_order"):
        raise NetworkError(f"folder: the network of {path} reads colours as blue, green, red, which is not supported.")
    if not processing:
        return [], []
    factor = 255 * processing.get("rescale_factor", 1 / 255) if processing.get("do_rescale", True) else 255.0
    if not processing.get("do_normalize", True):
        return [0.0] * 3, [1 / factor] * 3
    mean, std = processing.get("image_mean", []), processing.get("image_std", [])
    if not all(isinstance(value, int | float) for value in [*mean, *std]) or any(value <= 0 for value in std):
        raise NetworkError(f"folder: {path / PREPROCESSOR} has mean {mean} and std {std}, which do not scale images.")
    return [value / factor for value in mean], [value / factor for value in std]
