"""A process that keeps exchanging names under the hands of whoever opens them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Each exchange is one system call (renameat2(2)): there is always something at both names. The process
# ends with the one that started it, however that ends (PR_SET_PDEATHSIG, prctl(2)).
_EXCHANGE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(1, 9)
rename = libc.renameat2
names = [name.encode() for name in sys.argv[1:]]
pairs = list(zip(names[::2], names[1::2]))
print("swapping", flush=True)
while True:
    for one, other in pairs:
        if rename(-100, one, -100, other, 2):
            sys.exit("renameat2: %d" % ctypes.get_errno())
"""


@contextmanager
def swapping(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """While inside, the two names of every pair are exchanged as fast as one processor can."""
    names = [str(name) for pair in pairs for name in pair]
    argv = [sys.executable, "-S", "-c", _EXCHANGE, *names]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"swapping\n"
        try:
            yield
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.kill()
