"""`python -m mock_snakemake …`, or this file by its path from any directory, with nothing installed."""

from __future__ import annotations

import sys

if not __package__:
    sys.path.insert(0, __file__.rpartition("/mock_snakemake/")[0] or "/")

from mock_snakemake.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
