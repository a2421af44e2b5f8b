"""Whether traces are told, and by what."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from runner.errors import TracesUnavailable

if TYPE_CHECKING:
    from runner.settings import RunnerSettings
    from runner.spans import SpanExporter

_EXTRA: Final = "otel"
_INSTALL: Final = "pip install 'snakeline[server,otel]'"


def exporter_of(settings: RunnerSettings) -> SpanExporter | None:
    """What sends spans; None where none are told. Raises TracesUnavailable."""
    if settings.traces == "off":
        return None
    try:
        # Here, because it takes 0.1 s and 9 MB that only those who use it should pay for.
        from runner.otlp_export import OtlpExporter  # noqa: PLC0415
    except ImportError as error:
        raise TracesUnavailable(
            f"SNAKELINE_TRACES=otlp needs the extra {_EXTRA}, and {error.name} is not installed: {_INSTALL}."
        ) from error
    try:
        exporter = OtlpExporter(version("snakeline"))
    except Exception as error:
        raise TracesUnavailable(
            f"SNAKELINE_TRACES=otlp: the OTEL_ variables cannot be used: {error}"
        ) from error
    return None if exporter.is_disabled else exporter
