"""What the service answers, as a document: an object of JSON with the fields that it is to have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from snakeline.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    import httpx2


class _Document(dict[str, Any]):
    """Raises UnexpectedAnswer for a field that every Snakeline service answers and this one does not."""

    def __init__(self, fields: dict[str, Any], url: str) -> None:
        super().__init__(fields)
        self._url = url

    def __missing__(self, field: str) -> NoReturn:
        raise UnexpectedAnswer(f"what answers at {self._url} is no Snakeline service: without {field!r}")


def document_of(answer: httpx2.Response) -> dict[str, Any]:
    """Raises UnexpectedAnswer where it is no JSON object."""
    try:
        found = answer.json()
    except ValueError:  # also of bytes that are no text
        found = None
    url = str(answer.url.copy_with(query=None, userinfo=b""))
    if not isinstance(found, dict):
        raise UnexpectedAnswer(f"what answers at {url} is no Snakeline service: no object of JSON")
    return _Document(found, url)
