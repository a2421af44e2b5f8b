"""What can go wrong in the runner, by meaning. The API alone knows which HTTP status each becomes."""

from __future__ import annotations

from dataclasses import dataclass


class RunnerError(Exception):
    """Base of every error the runner raises on purpose; its text says what to do."""


class JobNotFound(RunnerError):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id!r}.")
        self.job_id = job_id


class WorkflowNotFound(RunnerError):
    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        listed = ", ".join(known) if known else "none are registered"
        super().__init__(f"There is no workflow {name!r}; known: {listed}.")
        self.name = name


class LogNotFound(RunnerError):
    """The attempt does not exist. An attempt that has written nothing yet has an empty log."""


class InvalidTransition(RunnerError):
    """The job's status does not allow this change."""

    def __init__(self, job_id: str, status: str, change: str) -> None:
        super().__init__(f"Job {job_id} is {status}: {_WHAT_TO_DO.get(change, change)}.")
        self.job_id = job_id
        self.status = status
        self.change = change


_WHAT_TO_DO = {
    "cancel_requested": "only a pending or running job can be cancelled",
    "retried": "only a failed or cancelled job can be retried",
    "deleted": "cancel it and wait for its end before deleting it",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a submission; `pointer` is a JSON pointer (RFC 6901) into the request body."""

    pointer: str
    detail: str


class InvalidSpec(RunnerError):
    """The submission names a known workflow but cannot be run as it stands."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{e.pointer}: {e.detail}" for e in errors))
        self.errors = errors


class IdempotencyMismatch(RunnerError):
    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another body: send the same body, or a new key.")


class QueueFull(RunnerError):
    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} jobs are pending, the most SNAKELINE_MAX_PENDING allows: try again later.")
        self.retry_after_s = 5


class StoreUnavailable(RunnerError):
    """The store cannot answer now; the request changed nothing and may be repeated."""

    retry_after_s = 5


class StorageFull(RunnerError):
    """There is no room for the job; nothing was accepted."""


class ShuttingDown(RunnerError):
    """The service is stopping and takes no new jobs."""

    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("The service is stopping: submit again in a few seconds.")


class BackendUnavailable(RunnerError):
    """The backend could not do it now; safe to repeat."""


class EngineUnavailable(RunnerError):
    """The engine cannot be started: it is missing, not executable, or does not answer."""


class DataDirUnusable(RunnerError):
    """The data directory cannot be used: not writable, or another service owns it."""
