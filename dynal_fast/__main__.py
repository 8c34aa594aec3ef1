"""``python -m dynal_fast``: the command line."""

import sys

from dynal_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
