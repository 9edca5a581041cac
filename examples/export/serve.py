"""Answer images with a student that ``kdpipe export --onnx`` wrote: ONNX Runtime, NumPy and Pillow are all it needs.

kdpipe export digits small-kd-l0.2-s0 --onnx student.onnx
python examples/export/serve.py student.onnx one.png two.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(model: str, *files: str) -> None:
    """Print the class of each image, and how sure the student is."""
    session = onnxruntime.InferenceSession(model)
    class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    (given,) = session.get_inputs()
    _, channels, height, width = given.shape
    images = []
    for file in files:
        with Image.open(file) as image:
            small = image.convert("L" if channels == 1 else "RGB").resize((width, height))
        images.append(np.asarray(small, np.uint8).reshape(height, width, channels).transpose(2, 0, 1))
    pixels = np.stack(images)
    batch = pixels if given.type == "tensor(uint8)" else (pixels / 255).astype(np.float32)
    logits = session.run(["logits"], {"images": batch})[0]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    for file, row in zip(files, probabilities, strict=True):
        print(f"{file}: {class_names[row.argmax()]} ({row.max():.1%})")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit("usage: serve.py STUDENT.onnx IMAGE...")
    main(*sys.argv[1:])
