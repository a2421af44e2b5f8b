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


class WorkflowUnavailable(RunnerError):
    """The folder of a registered workflow cannot be read just now."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"The workflow {name!r} cannot be read ({detail}): look at its folder.")
        self.name = name


class JobFilesGone(RunnerError):
    """What was stored for a job to run is not there any more; the text says what, and what to do."""


class TooManyUploads(RunnerError):
    """The tenant is sending as many files at a time as it may; others may still send theirs."""

    retry_after_s = 5

    def __init__(self, tenant: str, limit: int) -> None:
        super().__init__(f"{limit} uploads of tenant {tenant!r} are under way: try again when one has ended.")


class UploadTooLarge(RunnerError):
    """The files of a submission are more than the job may bring; nothing was accepted."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The files must not be larger than {limit_bytes} bytes together, unpacked ones included."
        )


class LogNotFound(RunnerError):
    """The attempt does not exist. An attempt that has written nothing yet has an empty log."""


class OutputNotFound(RunnerError):
    """The job has no such file that could be handed out: it may be missing, a link, a folder, a device."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} has no file at this path: its outputs lists those there are.")
        self.job_id = job_id


class JobBusy(RunnerError):
    """Something else is done in the job's folder just now."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"A report of job {job_id} is being made, or it is being deleted: try again soon.")
        self.job_id = job_id


class ReportNotFound(RunnerError):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no report of job {job_id} yet: a POST to this address makes one.")
        self.job_id = job_id


class ReportImpossible(RunnerError):
    """The engine cannot make a report of the job as it is; the text says why, in the engine's words."""


class TooManySideRuns(RunnerError):
    """Plans and reports of others come first."""

    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("Too many plans and reports are being made: try again in a few seconds.")


class TaskNotFound(RunnerError):
    """The job has no such attempt, or the attempt has told of no such task."""


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
    "reported": "a report can be made once it has ended",
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


class TenantQueueFull(RunnerError):
    """The tenant's share of the queue is used up; others may still submit."""

    retry_after_s = 5

    def __init__(self, tenant: str, limit: int) -> None:
        super().__init__(f"{limit} jobs of tenant {tenant!r} are pending, its quota: try again later.")


class StorageQuotaExceeded(RunnerError):
    """The tenant's jobs have taken the room they may take; nothing was accepted."""

    def __init__(self, tenant: str, used_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The files of tenant {tenant!r} take {used_bytes / 2**30:.1f} GiB, "
            f"its quota is {limit_bytes / 2**30:.1f} GiB: delete jobs that have ended."
        )


class Forbidden(RunnerError):
    """The caller is known and may not do this."""


class InvalidAccess(RunnerError):
    """A key or a quota cannot be as it was asked for."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{e.pointer}: {e.detail}" for e in errors))
        self.errors = errors


class KeyNotFound(RunnerError):
    def __init__(self, prefix: str) -> None:
        # Without what is behind the dot: it may be a secret, given by mistake.
        super().__init__(f"There is no key {prefix.partition('.')[0][:100]!r}.")


class KeyNotActive(RunnerError):
    def __init__(self, prefix: str) -> None:
        super().__init__(f"The key {prefix} is revoked or has expired: create a new one.")


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


class IsolationUnavailable(RunnerError):
    """Jobs cannot be kept apart here as the settings require, or the settings contradict each other."""


class DataDirUnusable(RunnerError):
    """The data directory cannot be used: not writable, or another service owns it."""


class TracesUnavailable(RunnerError):
    """Traces cannot be told as the settings require: the extra is missing, or its own variables are wrong."""
