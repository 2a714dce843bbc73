"""`python -m federation.relay` runs an enrolled relay in the foreground."""

import sys

from federation.relay.process import main

if __name__ == "__main__":
    sys.exit(main())
