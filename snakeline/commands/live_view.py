"""What `snakeline watch` shows on a terminal: never more lines than it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from snakeline.commands import words
from snakeline.commands.plain import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from snakeline.client import Job

Node: TypeAlias = "dict[str, Any]"
_ORDER: Final = ("failed", "running", "cancelled", "pending", "completed", "up_to_date")
_AROUND: Final = 6  # lines beside those of rules or jobs
_WIDEST_BAR: Final = 40
_SEGMENTS: Final = (("completed", "█", "green"), ("failed", "█", "red"), ("running", "▒", "cyan"))


def live(view: JobView | JobsView) -> Live:
    """Shows `view` on a screen of its own and gives the terminal back as it was."""
    return Live(view, console=view.console, screen=True, auto_refresh=False)


class JobView:
    """One job with a bar for each rule; those that want attention first."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.trouble = ""
        self._job: Job | None = None
        self._nodes: list[Node] = []

    def show(self, job: Job, nodes: list[Node]) -> None:
        self._job, self._nodes = job, nodes

    def print_last(self) -> None:
        """The last state, where it stays."""
        self.console.print(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        job = self._job
        if job is None:
            return
        room = max(1, (options.height or console.size.height) - _AROUND)
        nodes = sorted(self._nodes, key=lambda node: _ORDER.index(node["status"]))
        shown = nodes if len(nodes) <= room else nodes[: room - 1]
        width = max(8, min(_WIDEST_BAR, options.max_width - 40))
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, options.max_width - width - 22))
        table.add_column(no_wrap=True, width=width)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for node in shown:
            counts: Mapping[str, int] = node["counts"]
            look = words.STYLES.get(node["status"], "")
            name = Text(f"{words.ICONS.get(node['status'], '?')} {one_line(node['rule'])}", look)
            table.add_row(name, bar(counts, width), Text(_count(counts)))
        yield from _head(job, self.trouble)
        yield table
        if len(shown) < len(nodes):
            yield Text(f"… and {len(nodes) - len(shown)} more rules", "dim")


class JobsView:
    """All jobs that run, then those that wait, in the order of their turn."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.trouble = ""
        self._jobs: list[Job] = []
        self._running = self._pending = 0

    def show(self, running: Sequence[Job], pending: Sequence[Job], total: int, waiting: int) -> None:
        self._jobs, self._running, self._pending = [*running, *pending], total, waiting

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, (options.height or console.size.height) - _AROUND)
        shown = self._jobs[:room]
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis")
        for job in shown:
            style = words.STYLES.get(job.status, "")
            counts = dict(job.progress or {})
            done = bar({**counts, "completed": counts.get("done", 0)}, 16)
            cells = (job.id[:18], words.status_word(job.status))
            title = one_line(job.name or job.workflow)
            table.add_row(
                *(Text(one_line(cell), style) for cell in cells), done, Text(words.done_of(job)), Text(title)
            )
        yield Text(f"{self._running} running, {self._pending} pending    (Ctrl-C ends this view)", "bold")
        yield Text(self.trouble, "yellow", no_wrap=True, overflow="ellipsis")
        yield table if shown else Text("Nothing runs or waits.", "dim")
        left = self._running + self._pending - len(shown)
        if left > 0:
            yield Text(f"… and {left} more", "dim")


def bar(counts: Mapping[str, int], width: int) -> Text:
    """As wide as told; what is there of something is at least one cell of it, as long as there is room."""
    total = max(1, counts.get("total", 0) - counts.get("up_to_date", 0))
    text = Text()
    left = width
    for status, sign, style in _SEGMENTS:
        count = counts.get(status, 0)
        cells = min(left, max(1, count * width // total)) if count else 0
        text.append(sign * cells, style)
        left -= cells
    return text.append("░" * left, "dim")


def _head(job: Job, trouble: str) -> RenderResult:
    style = words.STYLES.get(job.status, "")
    title = f"  {one_line(job.name or job.workflow)}"
    far = f"{words.done_of(job)} tasks" if job.progress else "no tasks are known yet"
    yield Group(
        Text.assemble(
            (words.status_word(one_line(job.status)), f"bold {style}"),
            (title, "bold"),
            no_wrap=True,
            overflow="ellipsis",
        ),
        Text(f"{far}, {words.took(job)}, attempt {job.attempt}", no_wrap=True, overflow="ellipsis"),
        Text(job.id, "dim", no_wrap=True, overflow="ellipsis"),
        Text(trouble, "yellow", no_wrap=True, overflow="ellipsis"),
    )


def _count(counts: Mapping[str, int]) -> str:
    told = f"{counts['completed']}/{counts['total'] - counts['up_to_date']}"
    return told + (f", {counts['failed']} failed" if counts["failed"] else "")
