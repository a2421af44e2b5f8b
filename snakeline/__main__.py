"""`python -m snakeline` is the `snakeline` command."""

from __future__ import annotations

from snakeline.cli import main

if __name__ == "__main__":
    main()
