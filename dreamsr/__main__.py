"""`python -m dreamsr`, the same as the command `dreamsr`."""

import sys

from dreamsr.cli import main

if __name__ == "__main__":
    sys.exit(main())
