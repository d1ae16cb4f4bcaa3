"""``python -m igos_pl`` is the same as ``igos-pl``."""

import sys

from igos_pl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
