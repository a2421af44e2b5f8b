"""The client's connections to one service: requests, streams of events, downloads.

Made from `aio/connection.py` by `python -m tests.support.sync_client`: change that.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import httpx2

from snakeline.client.errors import Unreachable, problem_of
from snakeline.client.pauses import pause
from snakeline.client.retries import Absence, Tries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    from snakeline.client.upload import Part

_SILENCE_S: Final = 60.0  # the service's heartbeat is four times as fast
_EVENT_LIMIT_BYTES: Final = 16 * 2**20


class Connection:
    """A pool of connections to the service at `base_url`; redirects are not followed.

    Every method raises `Problem` when the service refuses and `Unreachable` when it does not answer. What may
    pass is borne for `retry_for_s`: 429 and 503, and, once it has answered, an absence of the service.
    """

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float, retry_for_s: float) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("the API key must be printable ASCII without spaces")
        self._retry_for_s = retry_for_s
        self._was_reached = False
        # The address is given: a proxy from the environment would not reach a service on this machine.
        self._http = httpx2.Client(
            base_url=base_url,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
            verify=not base_url.startswith("http://"),  # without TLS, certificates need not be loaded
        )

    def close(self) -> None:
        self._http.close()

    def absence(self) -> Absence:
        return Absence(self._retry_for_s)

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
        repeatable: bool | None = None,
    ) -> httpx2.Response:
        """The answer, if it is a success or has a status of `accept`. `parts` go instead of a JSON `body`.

        Of a request that is `repeatable` it does no harm that the service gets it twice; by default one that
        changes nothing. Only such a one is sent again when its connection has broken.
        """
        timeout = self._http.timeout if timeout_s is None else timeout_s
        tries = Tries(self._retry_for_s)
        while True:
            try:
                answer = self._http.request(
                    method, path, json=body, files=parts, params=params, headers=headers, timeout=timeout
                )
            except httpx2.RequestError as error:
                may_repeat = method == "GET" if repeatable is None else repeatable
                pause_s = tries.after_break() if self._may_pass(error, may_repeat=may_repeat) else None
                if pause_s is None:
                    raise Unreachable(f"{method} {self._http.base_url}{path}: {_text(error)}") from error
            else:
                self._was_reached = True
                if answer.is_success or answer.status_code in accept:
                    return answer
                refused = problem_of(answer)
                pause_s = tries.after_refusal(refused)
                if pause_s is None:
                    raise refused
            pause(pause_s)

    def events(
        self, path: str, *, params: Mapping[str, Any] | None = None, after: str | None, what: str
    ) -> Iterator[httpx2.ServerSentEvent]:
        """The events behind the one with the id `after`; `what` names the stream in errors.

        Raises Unreachable when the stream is over, for whatever reason: only an event can say that it is, or
        the service, which answers that there is nothing to wait for: then it returns.
        """
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
        with self._stream(path, params=params, headers=headers, what=what) as answer:
            if answer.status_code == httpx2.codes.NO_CONTENT:
                return
            for event in httpx2.EventSource(answer, max_event_size=_EVENT_LIMIT_BYTES):
                yield event
        raise Unreachable(f"{what} broke off before its end.")

    def pieces(self, path: str, *, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """The answer's body as it comes. Raises Unreachable where it breaks off."""
        with self._stream(path, params=params, headers={}, what=f"The file {path}") as answer:
            for piece in answer.iter_bytes():
                yield piece

    def save(self, path: str, to: str | os.PathLike[str], *, params: Mapping[str, Any] | None = None) -> None:
        """Save the answer's body as `to`, whole or not at all; an existing file is replaced.

        A connection that breaks is taken up where it broke, if the file is still the same.
        """
        partial = f"{os.fspath(to)}.part"
        absence = self.absence()
        etag: str | None = None
        try:
            with open(partial, "wb") as file:
                while True:
                    try:
                        etag = self._append(path, params, file, etag)
                        break
                    except Unreachable as error:
                        etag = error.etag if isinstance(error, _BrokeOff) else etag
                        if isinstance(error, _BrokeOff) and error.got_any:
                            absence.over()
                        elif not self._was_reached:
                            raise
                        pause(absence.pause(error))
            os.replace(partial, to)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(partial)

    def _append(
        self, path: str, params: Mapping[str, Any] | None, file: IO[bytes], etag: str | None
    ) -> str | None:
        """Write what `file` has not got yet of the version `etag`; of another version, all of it."""
        at = file.tell() if etag else 0
        headers = {"Range": f"bytes={at}-", "If-Range": etag} if etag and at else {}
        what = f"The file {path}"
        got_any = False
        try:
            with self._stream(path, params=params, headers=headers, what=what) as answer:
                etag = answer.headers.get("etag")
                if answer.status_code != httpx2.codes.PARTIAL_CONTENT:
                    file.seek(0)
                    file.truncate()
                for piece in answer.iter_bytes():
                    file.write(piece)
                    got_any = True
        except Unreachable as error:
            raise _BrokeOff(str(error), etag, got_any=got_any) from error
        return etag

    @contextmanager
    def _stream(
        self, path: str, *, params: Mapping[str, Any] | None, headers: Mapping[str, str], what: str
    ) -> Iterator[httpx2.Response]:
        """An answer whose body is still to come, if it is a success."""
        given = self._http.timeout
        # One that is silent is not broken, but the service is never silent for longer than this.
        timeout = httpx2.Timeout(connect=given.connect, read=_SILENCE_S, write=given.write, pool=given.pool)
        tries = Tries(self._retry_for_s)
        try:
            while True:
                with self._http.stream(
                    "GET", path, params=params, headers=headers, timeout=timeout
                ) as answer:
                    self._was_reached = True
                    if answer.is_success:
                        yield answer
                        return
                    answer.read()
                refused = problem_of(answer)
                pause_s = tries.after_refusal(refused)
                if pause_s is None:
                    raise refused
                pause(pause_s)
        except httpx2.RequestError as error:
            raise Unreachable(f"{what} broke off: {_text(error)}") from error

    def _may_pass(self, error: httpx2.RequestError, *, may_repeat: bool) -> bool:
        # To an address that has never answered, the first failure is the answer: it may well be wrong.
        was_sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
        return self._was_reached and (may_repeat or not was_sent)


class _BrokeOff(Unreachable):
    def __init__(self, text: str, etag: str | None, *, got_any: bool) -> None:
        super().__init__(text)
        self.etag = etag
        self.got_any = got_any


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
