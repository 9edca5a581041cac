"""A network as ONNX: images in, logits out, with its own scaling and resizing inside, and checked against torch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdpipe.errors import KdpipeError, NetworkError
from kdpipe.files import write_atomic
from kdpipe.models.hooked import HookedNetwork, without_fast_path
from kdpipe.models.network import Network
from kdpipe.models.structures import answer_of
from kdpipe.pipeline.delivery.chosen import Chosen

OPSET = 18  # of ONNX's own operators: the least that torch's exporter writes without converting
IMAGES, LOGITS = "images", "logits"
FLOAT, UINT8 = "float", "uint8"
TOLERANCE = 1e-3  # of the largest logit: more than another order of sums in float32 brings
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


class Deployed(nn.Module):
    """What stands in the file: images (B, C, H, W) to logits (B, K).

    Args:
        image_shape: (C, H, W) of the images.
        takes: ``float`` in [0, 1], or ``uint8`` in [0, 255].
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, network: Network, image_shape: tuple[int, int, int], takes: str) -> None:
        super().__init__()
        self.network, self.takes = network, takes
        self.classes = network.arrangement.classes if isinstance(network, HookedNetwork) else 0
        _, height, width = image_shape
        side = network.image_size
        self.resized = side is not None and (height, width) != (side, side)
        # Resizing images of one size is linear, so it is two products: runtimes differ in how they antialias.
        self.register_buffer("rows", _resizing(height, side) if side is not None else torch.eye(height))
        self.register_buffer("columns", _resizing(width, side) if side is not None else torch.eye(width))

    def forward(self, images: Tensor) -> Tensor:
        if self.takes == UINT8:
            images = images.float() / 255.0
        if self.resized:
            images = self.rows @ images @ self.columns.T
        network = self.network
        if network.head is not None:  # it takes the last map
            return network(images).logits
        answer = network.model((images - network.mean) / network.std)
        if isinstance(network, HookedNetwork):
            found = answer_of(answer, self.classes)
            assert found is not None, "the pass that arranged the network found the logits"
            return found
        return answer


def _resizing(length: int, side: int) -> Tensor:
    """The matrix (side, length) by which torch resizes one direction of an image."""
    return F.interpolate(torch.eye(length)[None, None], (side, length), mode="bilinear", antialias=True)[0, 0]


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX file that is not written yet.

    Attributes:
        difference: the largest absolute difference of a logit from torch's.
        checked: on how many images.
        norms: operators of batch normalisation that are left; none where all went into convolutions.
    """

    content: bytes
    takes: str
    difference: float
    checked: int
    norms: int

    def write(self, path: Path) -> None:
        """Write the file whole, or not at all."""
        write_atomic(path, self.content)


def make_onnx(chosen: Chosen, images: Tensor, metadata: Mapping[str, Any], takes: str = FLOAT) -> OnnxFile:
    """Export a network and hold it against torch.

    Args:
        images: (N, C, H, W) uint8 that both must answer alike.
        metadata: kept in the file, as texts or JSON.
        takes: ``float`` or ``uint8``.

    Raises:
        KdpipeError: a package that this needs is not installed.
        NetworkError: the network cannot be exported, or ONNX Runtime answers differently.
    """
    if absent := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise KdpipeError(f"--onnx needs {', '.join(absent)}, not installed here: pip install 'kdpipe[onnx]'.")
    model = _exported(Deployed(chosen.network, chosen.image_shape, takes).eval(), chosen, takes)
    for name, value in {"class_names": list(chosen.class_names), **metadata}.items():
        model.metadata_props.add(key=name, value=value if isinstance(value, str) else json.dumps(value))
    content = model.SerializeToString()
    norms = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
    difference = _difference(content, chosen, images, takes)
    return OnnxFile(content, takes, difference, len(images), norms)


def _exported(deployed: Deployed, chosen: Chosen, takes: str) -> Any:
    example = torch.zeros(2, *chosen.image_shape, dtype=torch.uint8 if takes == UINT8 else torch.float32)
    try:
        with _quiet(), without_fast_path(), torch.no_grad():
            program = torch.onnx.export(
                deployed,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[IMAGES],
                output_names=[LOGITS],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises many types at what it cannot write
        first = str(error).strip().partition("\n")[0]
        raise NetworkError(
            f"{chosen.network_id}: torch cannot write this network as ONNX ({first}); --safetensors carries its "
            "weights without."
        ) from None
    assert program is not None, "torch's exporter by dynamo returns what it made"
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of its own steps; what went wrong it raises."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(before)


def _difference(content: bytes, chosen: Chosen, images: Tensor, takes: str) -> float:
    """The largest difference of a logit between ONNX Runtime and torch, over one image alone and all together."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    scaled = images.float() / 255.0
    given = (images if takes == UINT8 else scaled).numpy()
    with torch.no_grad():
        expected = chosen.network(scaled).logits.numpy()
    answers = session.run([LOGITS], {IMAGES: given})[0]
    alone = session.run([LOGITS], {IMAGES: given[:1]})[0]
    return agreement(np.concatenate([alone, answers]), np.concatenate([expected[:1], expected]), chosen.network_id)


def agreement(answers: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], network_id: str) -> float:
    """The largest absolute difference of logits (N, K) from those that are expected.

    Raises:
        NetworkError: an answer is another class, or a difference is larger than rounding explains.
    """
    difference = float(np.abs(answers - expected).max())
    others = int((answers.argmax(1) != expected.argmax(1)).sum())
    if others or not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise NetworkError(
            f"{network_id}: ONNX Runtime gives another class to {others} of {len(expected)} images than torch, and "
            f"logits that differ by up to {difference:.2g}; nothing was written, --safetensors carries the weights as "
            "they are."
        )
    return difference
