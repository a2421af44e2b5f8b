"""Origins of web pages, as browsers name them."""

from __future__ import annotations

from urllib.parse import urlsplit


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them, separated by commas. Raises ValueError that names one that is none."""
    return tuple(_origin(item.strip()) for item in text.split(",") if item.strip())


def _origin(text: str) -> str:
    parts = urlsplit(text.lower())
    usual_port = {"http": 80, "https": 443}.get(parts.scheme)
    if usual_port is None or not parts.hostname or f"{parts.scheme}://{parts.netloc}" != text.lower():
        raise ValueError(f"{text!r} is no origin: write https://host or https://host:port")
    if "@" in parts.netloc or "*" in parts.netloc:
        raise ValueError(f"{text!r} is no origin: each has to be named")
    # Browsers leave the usual port out.
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, usual_port) else f":{parts.port}")
