"""The program's first line of Python: while what it needs is imported, Ctrl-C ends it without a traceback."""

from __future__ import annotations

import signal


def main() -> None:
    """Never returns."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        from shardmos.cli.main import main as run

        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        from shardmos.cli.main import main as run
    run()
