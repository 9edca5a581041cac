#!/usr/bin/env python
"""Train the networks of a study and write its artifacts: ``scripts/precompute.py studies/digits.toml``."""

import os
import sys
from pathlib import Path

# Idle OpenMP threads must not spin for long: on a machine that does anything else beside it, two that
# wait for each other by spinning hold up small networks. Set before torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from kdpipe.cli.commands import main
except KeyboardInterrupt:  # importing torch takes seconds
    sys.exit(130)

if __name__ == "__main__":
    main()
