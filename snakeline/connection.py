"""The client's connections to one service: requests, streams of events, downloads."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import httpx2

from snakeline.client_errors import Unreachable, problem_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from snakeline.upload import Part

_SILENCE_S: Final = 60.0  # the service's heartbeat is four times as fast
_ABSENCE_S: Final = 15.0
_PAUSE_S: Final = 0.25
_EVENT_LIMIT_BYTES: Final = 16 * 2**20


class Connection:
    """A pool of connections to the service at `base_url`; redirects are not followed.

    Every method raises `Problem` when the service refuses and `Unreachable` when it does not answer.
    """

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("the API key must be printable ASCII without spaces")
        # The address is given: a proxy from the environment would not reach a service on this machine.
        self._http = httpx2.Client(
            base_url=base_url,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
        )

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        parts: Sequence[Part] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        accept: tuple[int, ...] = (),
    ) -> httpx2.Response:
        """The answer, if it is a success or has a status of `accept`. `parts` go instead of a JSON `body`."""
        timeout = self._http.timeout if timeout_s is None else timeout_s
        try:
            answer = self._http.request(
                method, path, json=body, files=parts, params=params, headers=headers, timeout=timeout
            )
        except httpx2.RequestError as error:
            raise Unreachable(f"{method} {self._http.base_url}{path}: {_text(error)}") from error
        if answer.is_success or answer.status_code in accept:
            return answer
        raise problem_of(answer)

    def events(
        self, path: str, *, params: Mapping[str, Any] | None = None, after: str | None, what: str
    ) -> Iterator[httpx2.ServerSentEvent]:
        """The events behind the one with the id `after`; `what` names the stream in errors.

        Raises Unreachable when the stream is over, for whatever reason: only an event can say that it is, or
        the service, which answers that there is nothing to wait for: then it returns.
        """
        given = self._http.timeout
        # One that is silent is not broken, but the service is never silent for longer than this.
        timeout = httpx2.Timeout(connect=given.connect, read=_SILENCE_S, write=given.write, pool=given.pool)
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
        try:
            with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise problem_of(answer)
                if answer.status_code == httpx2.codes.NO_CONTENT:
                    return
                yield from httpx2.EventSource(answer, max_event_size=_EVENT_LIMIT_BYTES)
        except httpx2.RequestError as error:
            raise Unreachable(f"{what} broke off: {_text(error)}") from error
        raise Unreachable(f"{what} broke off before its end.")

    def save(self, path: str, to: str | os.PathLike[str], *, params: Mapping[str, Any] | None = None) -> None:
        """Save the answer's body as `to`, whole or not at all; an existing file is replaced."""
        partial = f"{os.fspath(to)}.part"
        try:
            with (
                self._http.stream("GET", path, params=params) as answer,
                open(partial, "wb") as file,
            ):
                if not answer.is_success:
                    answer.read()
                    raise problem_of(answer)
                file.writelines(answer.iter_bytes())
            os.replace(partial, to)
        except httpx2.RequestError as error:
            raise Unreachable(f"The file {path} broke off: {_text(error)}") from error
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)


class Absence:
    """Bears an unreachable service for a while, as during its restart."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self) -> None:
        self._since = None

    def bear(self, error: Unreachable) -> None:
        """Pause before the next try. Raises the error when it has lasted for too long."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since > _ABSENCE_S:
            raise error
        time.sleep(_PAUSE_S)  # noqa: TID251 - a pause between two tries of a caller that asked to wait


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
