"""The graph that the documentation shows.

`python -m tests.support.example_graph` draws docs/graph.svg anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from api.graph_svg import graph_svg
from runner.tasks import RuleCounts, RuleGraph, RuleNode

PICTURE: Final = Path(__file__).parents[2] / "docs" / "graph.svg"
_COUNTS: Final = {
    "genome": RuleCounts(up_to_date=1),
    "index": RuleCounts(up_to_date=1),
    "fetch": RuleCounts(completed=24),
    "trim": RuleCounts(completed=24),
    "align": RuleCounts(completed=17, running=4, pending=3),
    "fastqc": RuleCounts(completed=23, failed=1),
    "dedup": RuleCounts(completed=11, pending=13),
    "scatter": RuleCounts(completed=1),
    "call": RuleCounts(completed=2, running=2, pending=44),
    "gather": RuleCounts(pending=1),
    "counts": RuleCounts(completed=9, pending=15),
    "multiqc": RuleCounts(cancelled=1),
    "all": RuleCounts(pending=1),
}
EXAMPLE: Final = RuleGraph(
    nodes=tuple(RuleNode(rule, counts, rule == "scatter") for rule, counts in _COUNTS.items()),
    edges=(
        ("genome", "index"),
        ("fetch", "trim"),
        ("fetch", "fastqc"),
        ("trim", "align"),
        ("index", "align"),
        ("genome", "scatter"),
        ("align", "dedup"),
        ("dedup", "call"),
        ("scatter", "call"),
        ("call", "gather"),
        ("dedup", "counts"),
        ("fastqc", "multiqc"),
        ("dedup", "multiqc"),
        ("gather", "all"),
        ("counts", "all"),
        ("multiqc", "all"),
    ),
)

if __name__ == "__main__":
    PICTURE.write_text(graph_svg(EXAMPLE))
