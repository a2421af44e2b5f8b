"""The client's connections to one service: requests, streams of events, downloads."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx2

from snakeline.client.errors import Problem, UnexpectedAnswer, Unreachable, problem_of
from snakeline.client.pauses import async_pause
from snakeline.client.retries import AWAY, Absence, Tries, Waiting
from snakeline.client.saving import saved
from snakeline.client.tracing import trace_headers

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Mapping, Sequence

    from snakeline.client.upload import Part

_SILENCE_S: Final = 60.0  # the service's heartbeat is four times as fast
_EVENT_LIMIT_BYTES: Final = 16 * 2**20


class AsyncConnection:
    """A pool of connections to the service at `base_url`; redirects are not followed.

    Every method raises `Problem` when the service refuses and `Unreachable` when it does not answer. What may
    pass is borne for `retry_for_s`: 429 and 503, and, once it has answered, an absence of the service.
    `on_wait` is called before a pause that this takes, and with None when the pause is over.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout_s: float,
        retry_for_s: float,
        on_wait: Callable[[Waiting | None], None] | None,
    ) -> None:
        if not base_url.lower().startswith(("http://", "https://")):
            raise ValueError(f"{base_url!r} is no address: it begins with http:// or https://")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("the API key must be printable ASCII without spaces")
        self.on_wait = on_wait
        self._retry_for_s = retry_for_s
        self._was_reached = False
        try:
            # The address is given: a proxy from the environment would not reach a service on this machine.
            self._http = httpx2.AsyncClient(
                base_url=base_url,
                headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
                timeout=timeout_s,
                trust_env=False,
                follow_redirects=False,
                # Whoever waits for hundreds of jobs at once has as many requests open. It is for the service
                # to say how many are too many; a bound of ours would let a cancel wait behind them.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
                # The machine's own certificates, or SSL_CERT_FILE; without TLS they need not be loaded.
                verify=httpx2.create_ssl_context() if base_url.lower().startswith("https") else False,
            )
        except httpx2.InvalidURL as error:
            raise ValueError(f"{base_url!r} is no address: {error}") from error
        except OSError as error:
            raise ValueError(f"what SSL_CERT_FILE or SSL_CERT_DIR names cannot be read: {error}") from error

    async def close(self) -> None:
        await self._http.aclose()

    def absence(self) -> Absence:
        return Absence(self._retry_for_s)

    async def bear(self, absence: Absence, error: Unreachable) -> None:
        """Pause before the stream that broke is taken up. Raises the error where that is hopeless."""
        if not self._was_reached:
            raise error
        pause_s = absence.pause(error)
        await self._rest(pause_s, "The connection broke", absence.next_number)

    async def _rest(self, pause_s: float, why: str, number: int) -> None:
        told = self.on_wait
        if told is not None:
            told(Waiting(why, pause_s, number))
        try:
            await async_pause(pause_s)
        finally:
            if told is not None:
                told(None)

    async def send(
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
        repeatable: bool | None = None,
        final: Container[str] = (),
    ) -> httpx2.Response:
        """The answer, if it is a success or has a status of `accept`. `parts` go instead of a JSON `body`.

        Of a request that is `repeatable` it does no harm that the service gets it twice; by default one that
        changes nothing. Only such a one is sent again when its connection has broken. A refusal of a type in
        `final` is raised at once, though it may pass.
        """
        timeout = self._http.timeout if timeout_s is None else timeout_s
        headers = {**trace_headers(), **(headers or {})}
        may_repeat = method == "GET" if repeatable is None else repeatable
        tries = Tries(self._retry_for_s)
        while True:
            try:
                answer = await self._http.request(
                    method, path, json=body, files=parts, params=params, headers=headers, timeout=timeout
                )
            except httpx2.RequestError as error:
                why = "The service does not answer"
                pause_s = tries.after_break() if self._may_pass(error, may_repeat=may_repeat) else None
                if pause_s is None:
                    raise Unreachable(f"{method} {self._url(path)}: {_text(error)}") from error
            else:
                self._was_reached = True
                if answer.is_success or answer.status_code in accept:
                    return answer
                refused = problem_of(answer)
                why = _said(refused)
                is_away = may_repeat and refused.status in AWAY
                pause_s = tries.after_break() if is_away else tries.after_refusal(refused)
                if pause_s is None or refused.type in final:
                    raise refused
            await self._rest(pause_s, why, tries.next_number)

    async def events(
        self, path: str, *, params: Mapping[str, Any] | None = None, after: str | None, what: str
    ) -> AsyncGenerator[httpx2.ServerSentEvent]:
        """The events behind the one with the id `after`; `what` names the stream in errors.

        Raises Unreachable when the stream is over, for whatever reason: only an event can say that it is, or
        the service, which answers that there is nothing to wait for: then it returns.
        """
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
        async with self._stream(path, params=params, headers=headers, what=what) as answer:
            if answer.status_code == httpx2.codes.NO_CONTENT:
                return
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                raise UnexpectedAnswer(
                    f"what answers at {self._url(path)} is no Snakeline service: no events"
                )
            async for event in httpx2.EventSource(answer, max_event_size=_EVENT_LIMIT_BYTES):
                yield event
        raise Unreachable(f"{what} broke off before its end.")

    async def pieces(
        self, path: str, *, params: Mapping[str, Any] | None = None
    ) -> AsyncIterator[bytes | None]:
        """The answer's body as it comes; None where it is another one from here on, which begins anew.

        A connection that breaks is taken up where it broke, if the file is still the same.
        """
        absence = self.absence()
        etag: str | None = None
        at = 0
        while True:
            headers = {"Range": f"bytes={at}-", "If-Range": etag} if etag and at else {}
            try:
                async with self._stream(
                    path, params=params, headers=headers, what=f"The file {path}"
                ) as answer:
                    if answer.status_code != httpx2.codes.PARTIAL_CONTENT:
                        if at:
                            yield None
                        at = 0
                    else:
                        _begins(answer, at)
                    etag = answer.headers.get("etag")
                    async for piece in answer.aiter_bytes():
                        at += len(piece)
                        absence.over()
                        yield piece
            except Unreachable as error:
                await self.bear(absence, error)
            except Problem as refused:
                # Of the same file there is nothing behind the last byte: that one had come already.
                if not headers or refused.status != httpx2.codes.RANGE_NOT_SATISFIABLE:
                    raise
                return
            else:
                return

    async def save(
        self, path: str, to: str | os.PathLike[str], *, params: Mapping[str, Any] | None = None
    ) -> None:
        """Save the answer's body as `to`, whole or not at all; an existing file is replaced."""
        with saved(to) as file:
            async for piece in self.pieces(path, params=params):
                if piece is None:
                    file.seek(0)
                    file.truncate()
                else:
                    file.write(piece)

    @asynccontextmanager
    async def _stream(
        self, path: str, *, params: Mapping[str, Any] | None, headers: Mapping[str, str], what: str
    ) -> AsyncIterator[httpx2.Response]:
        """An answer whose body is still to come, if it is a success."""
        given = self._http.timeout
        # One that is silent is not broken, but the service is never silent for longer than this.
        timeout = httpx2.Timeout(connect=given.connect, read=_SILENCE_S, write=given.write, pool=given.pool)
        # Nothing on the way may pack it: events would come late, and a part is counted in the file's bytes.
        headers = {"Accept-Encoding": "identity", **trace_headers(), **headers}
        tries = Tries(self._retry_for_s)
        try:
            while True:
                async with self._http.stream(
                    "GET", path, params=params, headers=headers, timeout=timeout
                ) as answer:
                    self._was_reached = True
                    if answer.is_success:
                        yield answer
                        return
                    await answer.aread()
                refused = problem_of(answer)
                is_away = refused.status in AWAY
                pause_s = tries.after_break() if is_away else tries.after_refusal(refused)
                if pause_s is None:
                    raise refused
                await self._rest(pause_s, _said(refused), tries.next_number)
        except httpx2.RequestError as error:
            raise Unreachable(f"{what} broke off: {_text(error)}") from error

    def _url(self, path: str) -> str:
        """For people: what may be secret in it is left out."""
        base = str(self._http.base_url.copy_with(userinfo=b""))
        return f"{base.rstrip('/')}{path}"

    def _may_pass(self, error: httpx2.RequestError, *, may_repeat: bool) -> bool:
        # To an address that has never answered, the first failure is the answer: it may well be wrong.
        was_sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return self._was_reached and (may_repeat or not was_sent)


def _begins(part: httpx2.Response, at: int) -> None:
    if not part.headers.get("content-range", "").startswith(f"bytes {at}-"):
        raise Unreachable("Another part of the file came than was asked for.")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _said(refused: Problem) -> str:
    return f"{refused.status} {refused.title or refused.type}"
