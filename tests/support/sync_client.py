"""Makes `snakeline/client/sync/` from `snakeline/client/aio/`: `python -m tests.support.sync_client`.

The asynchronous client is written by hand; the other one is the same without waiting for anything.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "snakeline" / "client"
_BANNER = '"""{}\n\nMade from `{}` by `python -m tests.support.sync_client`: change that.\n"""\n'
_WORDS = (
    (r"\basync (def|with|for) ", r"\1 "),
    (r"\bawait ", ""),
    (r"\basync_(\w+)", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\baclosing\b", "closing"),
    (r"\bAsync(Client|Job|Calls|AccessCalls|FileCalls|RunCalls|Connection|Iterator|Generator)\b", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\ba(read|close|iter_bytes)\b", r"\1"),
    (r"\bAwaitable\b", "Callable"),
    (r"\bsnakeline\.client\.aio\b", "snakeline.client.sync"),
)


def made() -> dict[str, str]:
    """The modules of the synchronous client by file name, as they should be."""
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((CLIENT / "aio").glob("*.py")):
            (Path(folder) / source.name).write_text(_without_waiting(source))
        ruff = [sys.executable, "-m", "ruff"]
        rules = ["--config", str(CLIENT.parents[1] / "pyproject.toml"), "--quiet", folder]
        rules += ["--config", 'lint.isort.known-first-party = ["snakeline"]']
        subprocess.run([*ruff, "check", "--select", "I", "--fix", *rules], check=True)
        subprocess.run([*ruff, "format", *rules[:4]], check=True)
        return {path.name: path.read_text() for path in Path(folder).glob("*.py")}


def _without_waiting(source: Path) -> str:
    text = source.read_text()
    first, rest = re.fullmatch(r'"""(.*?)"""\n(.*)', text, re.DOTALL).groups()  # type: ignore[union-attr]
    for pattern, replacement in _WORDS:
        rest = re.sub(pattern, replacement, rest)
    if source.name == "__init__.py":
        first = "The synchronous client."
    return _BANNER.format(first.splitlines()[0], f"aio/{source.name}") + rest


if __name__ == "__main__":
    for name, text in made().items():
        (CLIENT / "sync" / name).write_text(text)
