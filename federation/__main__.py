"""`python -m federation` runs the control plane in the foreground."""

import sys

from federation.main import main

if __name__ == "__main__":
    sys.exit(main())
