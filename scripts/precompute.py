#!/usr/bin/env python
"""The command line from a checkout that is not installed: ``scripts/precompute.py`` is ``kdpipe``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kdpipe.cli.main import main

if __name__ == "__main__":
    main()
