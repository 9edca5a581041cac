"""``python -m kdpipe``."""

from kdpipe.cli.main import main

main()
