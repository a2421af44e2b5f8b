"""A program in Snakemake's place that writes exactly what it is told. Standard library only.

`installed` makes it a command; a job's `parameters.acts` are done in order:

mixed:SIZE:SEED  bytes that are hard on readers: NULs, broken UTF-8, CRLF, terminal codes
line:SIZE        one line without an end
text:TEXT        just that
flood:SECONDS    as much of such a line as can be written meanwhile
wait:FIFO        until a writer has opened and closed it
daemon:silent    a process that leaves, ignores SIGTERM and keeps the output open; `chatty` writes 0xFF to it
                 now and then, `flooding` without a pause; `polite` says bye to SIGTERM, BYE_BYTES of it
give:SOCKET      the output to whoever listens there
exit:CODE

How many bytes were written, and their SHA-256, is in `written.json` in the working directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import sys
import time

RECORD_BYTES = 4096
BYE_BYTES = 3_000_000
_HEAD_BYTES = 16
_FILLER = bytes(33 + i % 90 for i in range(RECORD_BYTES - _HEAD_BYTES))
_BLOCK_RECORDS = 256
_NASTY = (
    b"\0",
    b"\0" * 100,
    b"\xff\xfe\xfd",
    b"\xc3(",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x92",
    "π🐍\u2028\u0085".encode(),
    b"\r\n",
    b"\n",
    b"\r",
    b"\n\n\r\n",
    b"\x1b[31merror\x1b[0m\x1b]0;title\x07",
    b"\x1b[2J\x9b1A\x08\x0b\x0c\x1a",
    b"event: end\ndata: {}\n\n",
    b"\n[snakeline: 5 bytes skipped]\n",
)


def mixed(size: int, seed: int) -> bytes:
    chosen = random.Random(seed)
    pieces: list[bytes] = []
    got = 0
    while got < size:
        piece = chosen.choice(_NASTY)
        if chosen.random() < 0.3:
            piece = chosen.randbytes(chosen.randrange(300))
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)[:size]


def line(start: int, size: int) -> bytes:
    """Bytes `start` to `start + size` of the line: each place can be told from what is there."""
    first = start // RECORD_BYTES
    last = -(-(start + size) // RECORD_BYTES)
    records = b"".join([b"%015x:" % number + _FILLER for number in range(first, last)])
    return records[start - first * RECORD_BYTES :][:size]


class _Output:
    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    def write(self, data: bytes | bytearray, *, hashed: bool = True) -> None:
        if hashed:
            self._hash.update(data)
        view = memoryview(data)
        while view:
            written = os.write(1, view)
            self.size += written
            view = view[written:]

    def note(self) -> None:
        with open("written.json", "w", encoding="utf-8") as file:
            json.dump({"bytes": self.size, "sha256": self._hash.hexdigest()}, file)


def _flood(output: _Output, seconds: float) -> None:
    block = bytearray(line(0, _BLOCK_RECORDS * RECORD_BYTES))
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for at in range(0, len(block), RECORD_BYTES):
            block[at : at + _HEAD_BYTES] = b"%015x:" % number
            number += 1
        output.write(block, hashed=False)


def _say_bye(_number: int, _frame: object) -> None:
    _Output().write(b"\xff" * BYE_BYTES)
    os._exit(0)


def _leave_daemon(kind: str) -> None:
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os.read(ready, 1)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, _say_bye if kind == "polite" else signal.SIG_IGN)
    os.write(told, b".")
    while True:
        if kind in ("silent", "polite"):
            signal.pause()
        os.write(1, b"\xff" * 1000)
        if kind == "chatty":
            time.sleep(0.001)  # noqa: TID251 - the job's own


def _do(act: str, output: _Output) -> None:
    kind, *arguments = act.split(":")
    match kind:
        case "mixed":
            output.write(mixed(int(arguments[0]), int(arguments[1])))
        case "line":
            size, step = int(arguments[0]), _BLOCK_RECORDS * RECORD_BYTES
            for start in range(0, size, step):
                output.write(line(start, min(step, size - start)))
        case "text":
            output.write(":".join(arguments).encode())
        case "flood":
            _flood(output, float(arguments[0]))
        case "wait":
            with open(arguments[0], "rb") as fifo:
                fifo.read()
        case "daemon":
            _leave_daemon(arguments[0])
        case "give":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.connect(arguments[0])
                socket.send_fds(listener, [b"."], [1])
        case "exit":
            output.note()
            os._exit(int(arguments[0]))
        case _:
            raise SystemExit(f"unknown act {act}")


def main(argv: list[str]) -> None:
    if argv == ["--version"]:
        print("9.0.0")  # noqa: T201 - as Snakemake answers
        return
    with open(argv[argv.index("--configfile") + 1], encoding="utf-8") as file:
        acts = json.load(file)["acts"]
    output = _Output()
    for act in acts:
        _do(act, output)
    output.note()


def installed(directory: str) -> dict[str, str]:
    """Make it a command there, with a workflow called `bytes`; the settings of a service that runs it."""
    command = os.path.join(directory, "snakemake")
    with open(__file__, encoding="utf-8") as file:
        source = file.read()
    with open(command, "w", encoding="utf-8") as file:
        # Through env, so that it is no Python script to the service, which would import Snakemake.
        file.write(f"#!/usr/bin/env -S {sys.executable} -I -S\n{source}")
    os.chmod(command, 0o700)
    workflow = os.path.join(directory, "workflows", "bytes")
    os.makedirs(workflow)
    with open(os.path.join(workflow, "Snakefile"), "w", encoding="utf-8"):
        pass
    return {"ENGINE": "snakemake", "SNAKEMAKE": command, "WORKFLOWS_DIR": os.path.dirname(workflow)}


if __name__ == "__main__":
    main(sys.argv[1:])
