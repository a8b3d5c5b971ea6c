"""Run one notebook, described by one argument, in a process of its own: how a grid runs several at once."""

import ast
import os
import signal
import sys
import threading

from lmmap.errors import InputError
from lmmap.notebooks.run import NotebookFailed, run_notebook


def main() -> None:
    """Run it; on failure the last line of stderr says why."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        run_notebook(**ast.literal_eval(sys.argv[1]), progress=False)
    except (InputError, NotebookFailed, OSError) as error:
        sys.exit(str(error))


def _stop_with_parent() -> None:
    """Leave as on SIGTERM once the parent is gone: nothing is ever written to stdin, so it ends only then."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
