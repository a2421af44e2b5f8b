"""A log as Server-Sent Events: text that can be resumed at any event, byte for byte."""

from __future__ import annotations

import codecs
import re

HEARTBEAT = b": still here\n\n"
_LINE_END = re.compile("\r\n|\r|\n")


def sse_event(data: str, *, event: str | None = None, event_id: int | None = None) -> bytes:
    """One event; every kind of line end in `data` reaches the client as a newline.

    See https://html.spec.whatwg.org/multipage/server-sent-events.html.
    """
    lines = [] if event is None else [f"event: {event}"]
    if event_id is not None:
        lines.append(f"id: {event_id}")
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


class TextEvents:
    """Turns the bytes of a stream into events whose ids are the offsets behind their data.

    An unfinished UTF-8 sequence, and a CR whose LF may follow, are held back for the next event; the id
    does not count them, so that a resumed stream begins with them.
    """

    def __init__(self, offset: int) -> None:
        self._restart(offset)

    def _restart(self, offset: int) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held_cr = False
        self._offset = offset

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """The event for `data`, or b"" when all of it is held back."""
        self._offset += len(data)
        text = ("\r" if self._held_cr else "") + self._decoder.decode(data, final)
        unfinished = len(self._decoder.getstate()[0])
        self._held_cr = text.endswith("\r") and not final and not unfinished
        if self._held_cr:
            text = text[:-1]
        if not text:
            return b""
        return sse_event(text, event_id=self._offset - unfinished - self._held_cr)

    def skip(self, start: int, end: int) -> bytes:
        """Bytes `[start, end)` are no longer kept: what was held back, and the event `gap`."""
        held = self.feed(b"", final=True)
        self._restart(end)
        return held + sse_event(f'{{"start":{start},"end":{end}}}', event="gap", event_id=end)
