"""Submits many jobs, a few at a time: the one thing that the two clients do in their own ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Required, TypedDict, TypeVar

from snakeline.client.errors import ClientError

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from snakeline.client.upload import Files

J = TypeVar("J")


class JobRequest(TypedDict, total=False):
    """The arguments of `submit`, by name."""

    workflow: Required[str]
    parameters: Mapping[str, Any]
    targets: Sequence[str]
    cores: int
    name: str
    labels: Mapping[str, str]
    priority: int
    timeout_s: float
    memory_mb: int
    max_retries: int
    retry_lost: bool
    options: Mapping[str, Any]
    files: Files
    workflow_file: str | os.PathLike[str]
    idempotency_key: str


class NotAllSubmitted(ClientError):
    """Some jobs were not submitted: `submitted` and `failures` tell what became of which, by its index.

    What is in neither was not begun.
    """

    def __init__(self, submitted: Mapping[int, Any], failures: Mapping[int, Exception], total: int) -> None:
        first = min(failures)
        super().__init__(
            f"{len(submitted)} of {total} jobs were submitted; number {first} failed: {failures[first]}"
        )
        self.submitted = submitted
        self.failures = failures


class _Batch(Generic[J]):
    """What is still to be submitted, and what came of the rest."""

    def __init__(self, requests: Iterable[JobRequest], at_once: int) -> None:
        if at_once < 1:
            raise ValueError("at_once must be at least 1")
        self.requests = list(requests)
        self.workers = min(at_once, len(self.requests))
        self.left: Iterator[int] = iter(range(len(self.requests)))
        self.submitted: dict[int, J] = {}
        self.failures: dict[int, Exception] = {}

    def next(self) -> int | None:
        return None if self.failures else next(self.left, None)

    def stop(self) -> None:
        """What is not begun is not begun any more."""
        self.left = iter(())

    def result(self) -> list[J]:
        if self.failures:
            raise NotAllSubmitted(self.submitted, self.failures, len(self.requests)) from next(
                iter(self.failures.values())
            )
        return [self.submitted[index] for index in range(len(self.requests))]


def submit_many(submit: Callable[..., J], requests: Iterable[JobRequest], *, at_once: int) -> list[J]:
    """By threads. Raises NotAllSubmitted."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to load: for many alone

    batch = _Batch[J](requests, at_once)

    def work() -> None:
        while (index := batch.next()) is not None:
            try:
                batch.submitted[index] = submit(**batch.requests[index])
            except (ClientError, OSError, ValueError, TypeError) as error:
                batch.failures[index] = error

    with ThreadPoolExecutor(max(1, batch.workers), "snakeline-submit") as pool:
        try:
            for worker in [pool.submit(work) for _ in range(batch.workers)]:
                worker.result()
        except BaseException:  # as Ctrl-C is
            batch.stop()
            raise
    return batch.result()


async def async_submit_many(
    submit: Callable[..., Awaitable[J]], requests: Iterable[JobRequest], *, at_once: int
) -> list[J]:
    """By tasks of the event loop. Raises NotAllSubmitted."""
    import anyio  # noqa: PLC0415 - slow to load: not for the other client

    batch = _Batch[J](requests, at_once)

    async def work() -> None:
        while (index := batch.next()) is not None:
            try:
                batch.submitted[index] = await submit(**batch.requests[index])
            except (ClientError, OSError, ValueError, TypeError) as error:
                batch.failures[index] = error

    async with anyio.create_task_group() as group:
        for _ in range(batch.workers):
            group.start_soon(work)
    return batch.result()
