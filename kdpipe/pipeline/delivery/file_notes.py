"""Sections of a card about the files that go with it: what they take, and the lines that load them."""

from __future__ import annotations

from kdpipe.pipeline.delivery.chosen import Chosen
from kdpipe.pipeline.delivery.onnx_file import IMAGES, LOGITS, OPSET, UINT8, OnnxFile
from kdpipe.pipeline.delivery.state_dict import by_timm, loading_lines


def onnx_note(chosen: Chosen, made: OnnxFile, file: str, checked_on: str) -> str:
    """How the ONNX file is used.

    Args:
        checked_on: what images it was checked on.
    """
    shape = ", ".join(map(str, chosen.image_shape))
    values = "uint8 in [0, 255]" if made.takes == UINT8 else "float32 in [0, 1]"
    lines = [
        "import json, onnxruntime",
        f"session = onnxruntime.InferenceSession({file!r})",
        f"logits = session.run([{LOGITS!r}], {{{IMAGES!r}: images}})[0]  # images: (B, {shape}), {values}",
        "class_names = json.loads(session.get_modelmeta().custom_metadata_map['class_names'])",
    ]
    resized = "" if chosen.network.image_size is None else f", and resizing to {chosen.network.image_size} pixels,"
    inside = f"Batches may have any size. Scaling by mean and deviation{resized} is inside."
    return f"## `{file}`\n\n{_python(lines)}\n\n{inside} It has {said_of_onnx(made, checked_on)}."


def said_of_onnx(made: OnnxFile, checked_on: str) -> str:
    """What a checked ONNX file is, in a line."""
    norms = "folded into convolutions" if not made.norms else f"kept ({made.norms} operators)"
    return (
        f"opset {OPSET}, batch normalisation {norms}, and on {made.checked} {checked_on} torch's class each time; "
        f"logits differ from torch's by {made.difference:.2g} at most"
    )


def state_note(chosen: Chosen, file: str) -> str:
    """How the safetensors file is loaded, by timm where timm alone can."""
    lines = loading_lines(chosen, file)
    text = f"## `{file}`\n\n{_python(lines)}\n\n`images`: float32 (B, C, H, W) in [0, 1]. "
    if not by_timm(chosen):
        why = "its head is a projector onto its teacher's classifier" if chosen.network.head is not None else (
            "its architecture is none of timm's"
        )  # fmt: skip
        return f"{text}kdpipe builds it, as {why}; the file holds all that it needs."
    return (
        f"{text}With kdpipe, two lines do all of it: `network = kdpipe.models.read_network({file!r})` and "
        "`logits = network(images).logits`."
    )


def _python(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])
