"""An engine that says who it is: as the error of a plan, and in a report. A job of it does nothing."""

import os
import sys


def main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        sys.stdout.write("9.0.0\n")
        return 0
    database = os.path.join(os.path.expanduser("~"), "..", "..", "..", "snakeline.db")
    state = "open" if os.access(database, os.R_OK) else "closed" if os.path.exists(database) else "missing"
    told = f"user {os.getuid()}, the store is {state}"
    if "--report" in arguments:
        with open(arguments[arguments.index("--report") + 1], "w", encoding="utf-8") as report:
            report.write(told)
        return 0
    if "--dry-run" in arguments:
        sys.stderr.write(f"snakemake: error: {told}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
