"""What a benchmark answers: figures side by side, and the table they end in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `quick` takes fewer and shorter rounds; `directory` is a fresh one for this benchmark."""

    quick: bool
    directory: Path
    root: Path

    @property
    def peers_python(self) -> Path:
        return self.root / ".venv-bench/bin/python"

    @property
    def snakemake(self) -> Path:
        return self.root / ".venv-snakemake/bin/snakemake"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `other` is the peer's or limit's figure; None shows `versus` alone."""

    what: str
    ours: float | None
    unit: str
    versus: str = ""
    other: float | None = None
    target: str = ""
    is_reached: bool | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.other if self.ours is not None and self.other else None


def compared(
    what: str,
    ours: float,
    unit: str,
    versus: str,
    other: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Our figure against another; the target, if any, is for the ratio."""
    ratio = ours / other
    if at_least is not None:
        return Row(what, ours, unit, versus, other, f">= {at_least:g} x", ratio >= at_least)
    if at_most is not None:
        return Row(what, ours, unit, versus, other, f"<= {at_most:g} x", ratio <= at_most)
    return Row(what, ours, unit, versus, other)


def limited(
    what: str, ours: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> Row:
    """Our figure against a fixed target."""
    if at_least is not None:
        return Row(what, ours, unit, target=f">= {at_least:g} {unit}", is_reached=ours >= at_least)
    if at_most is not None:
        return Row(what, ours, unit, target=f"<= {at_most:g} {unit}", is_reached=ours <= at_most)
    return Row(what, ours, unit)


def absent(what: str, how_to: str) -> Row:
    """A peer that is not there."""
    return Row(what, None, "", f"not installed: {how_to}")


def show(rows: Sequence[tuple[str, Row]]) -> None:
    table = Table(title="Snakeline against peers and limits, one machine, one run", title_justify="left")
    for name in ("benchmark", "figure"):
        table.add_column(name)
    for name in ("ours", "unit", "other", "ratio", "target"):
        table.add_column(name, justify="right" if name in ("ours", "other", "ratio") else "left")
    table.add_column("against")
    table.add_column("reached")
    last = ""
    for benchmark, row in rows:
        if benchmark != last and last:
            table.add_section()
        table.add_row(
            benchmark if benchmark != last else "",
            row.what,
            figure(row.ours),
            row.unit,
            figure(row.other),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.target,
            row.versus,
            "" if row.is_reached is None else "yes" if row.is_reached else "NO",
        )
        last = benchmark
    Console(width=170).print(table)


def figure(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
