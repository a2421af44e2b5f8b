"""Which type of answer a client asks for by name."""

from __future__ import annotations

import pytest

from api.accepts import accepts


@pytest.mark.parametrize(
    "header",
    [
        "application/zip",
        "text/html, Application/ZIP;q=0.5",
        "application/zip ; q=1.0; x=y",
        "application/zip;q=0.01",
    ],
)
def test_a_type_is_accepted_by_its_name(header: str) -> None:
    assert accepts(header, "application/zip")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "*/*",
        "application/*",
        "application/zip;q=0",
        "application/zip; Q=0.000",
        "application/zipx",
        ",;,",
    ],
)
def test_what_is_not_named_or_refused_is_not(header: str) -> None:
    assert not accepts(header, "application/zip")
