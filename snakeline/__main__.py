"""`python -m snakeline` is the `snakeline` command."""

from __future__ import annotations

import signal

# While it is loaded there is nothing to tidy up: Ctrl-C just ends it, without a traceback.
_IS_HEARD = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _IS_HEARD:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from snakeline.cli import main as command  # noqa: E402 - see above


def main() -> None:
    """The entry point of the console script."""
    if _IS_HEARD:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


if __name__ == "__main__":
    main()
