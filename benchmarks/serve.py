"""Serve one example, by itself in its process; the first line of the output is its port.

Run by request.py: python benchmarks/serve.py PACKAGE DATABASE_URL
PACKAGE is the directory of `flask_app` or of `starlette_app`.
"""

from __future__ import annotations

import logging
import secrets
import sys
from importlib import import_module
from pathlib import Path
from socket import create_server

THREADS = 4


def main(package: str, url: str) -> None:
    directory, name = Path(package).parent, Path(package).name
    sys.path.insert(0, str(directory))
    app = import_module(name).create_app({"DATABASE_URL": url, "SECRET_KEY": secrets.token_hex()})
    # That a request waits for a thread is what a load is for.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    listener = create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    if name == "flask_app":
        import_module("waitress").serve(app, sockets=[listener], threads=THREADS)
    else:
        uvicorn = import_module("uvicorn")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
