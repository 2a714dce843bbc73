"""Serves one API of the stack: `python -m tests.openstack.server.wsgi MODULE PORT`. Runs in the servers' venv."""

import sys
from importlib import import_module

from waitress import serve  # type: ignore[import-untyped]

if __name__ == "__main__":
    module, port = sys.argv[1:3]
    sys.argv = [module]  # the services parse it
    serve(import_module(module).application, host="127.0.0.1", port=int(port), threads=4, _quiet=True)
