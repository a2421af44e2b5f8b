"""The pause between two tries, for either kind of client."""

from __future__ import annotations

import time


async def async_pause(seconds: float) -> None:
    import anyio  # noqa: PLC0415 - slow to load: not for the other client

    await anyio.sleep(seconds)


def pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - a pause between two tries of a caller that asked to wait
