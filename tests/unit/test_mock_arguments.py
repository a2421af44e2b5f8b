"""The stand-in's command line: read quickly where the service wrote it, and always as argparse would."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mock_snakemake import cli

_WORDS = [
    *cli._FLAGS,
    *cli._VALUES,
    "-k",
    "-c",
    "--cores=2",
    "--",
    "1",
    "3",
    "0",
    "none",
    "mem_mb=5",
    "a/target",
    "-1",
    "",
    "--nonsense",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(_WORDS), max_size=10))
def test_every_command_line_means_what_argparse_says(argv: list[str]) -> None:
    try:
        expected = vars(cli._PARSER.parse_args(argv))
    except SystemExit:
        with pytest.raises(SystemExit):
            cli._parsed(argv)
        return
    assert vars(cli._parsed(argv)) == expected


def test_what_the_service_writes_does_not_take_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_PARSER", None)
    argv = ["--snakefile", "S", "--cores", "4", "--resources", "mem_mb=5", "--keep-going"]
    argv += ["--logger", "snakeline", "--", "all", "b"]
    arguments = cli._parsed(argv)
    assert arguments.resources == ["mem_mb=5"]
    assert (arguments.snakefile, arguments.cores, arguments.keep_going) == ("S", 4, True)
    assert arguments.targets == ["all", "b"]
