"""`python -m firstfault`."""

import sys

from firstfault.cli import main

if __name__ == "__main__":
    sys.exit(main())
