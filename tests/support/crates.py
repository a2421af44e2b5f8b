"""RO-Crates as they are fetched, and the official validator of them, which has an environment of its own."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.client import ContractClient

PROVENANCE, WORKFLOW_RUN = "provenance-run-crate-0.5", "workflow-run-crate-0.5"
# What is only recommended, and what nobody here knows: where a rule is on the web, whose publication it is.
UNKNOWN = {
    "The Application SHOULD have a url",
    "The SoftwareApplication id SHOULD be an absolute URI",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    "The author SHOULD have an organizational affiliation.",
    "The author SHOULD have a Contextual Entity which specifies the organizational `affiliation`.",
    "The Action SHOULD have a result",
}
_PYTHON = Path(__file__).parents[2] / ".venv-validator" / "bin" / "python"
# The only address that is asked for is that of RO-Crate's terms, which the library has brought along.
_PROGRAM = """
import json, sys
from pathlib import Path
import requests, rocrate
from rocrate.rocrate import ROCrate
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.utils.http import HttpRequester

CONTEXT = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()

def get(self, url, **_):
    answer = requests.Response()
    answer.url, answer.headers["Content-Type"] = url, "application/ld+json"
    answer.status_code = 200 if url == "https://w3id.org/ro/crate/1.1/context" else 504
    answer._content = CONTEXT
    return answer

HttpRequester.get = get
found = []
for path, profile in zip(sys.argv[1::2], sys.argv[2::2]):
    result = services.validate(ValidationSettings(
        rocrate_uri=path, profile_identifier=profile, requirement_severity=Severity.RECOMMENDED,
        offline=True, skip_availability_check=True,
    ))
    issues = [[i.severity.name, i.check.identifier, i.message] for i in result.get_issues()]
    main = ROCrate(path).mainEntity
    found.append({"issues": issues, "main": main and main.id})
print(json.dumps(found))
"""


def validated(*crates: tuple[Path, str]) -> list[dict[str, Any]]:
    """What each crate lacks of its profile: `issues` of severity, check and text; and its `main` file."""
    if not _PYTHON.exists():
        pytest.skip("the validator is not installed: make validator-env")
    argv = [str(_PYTHON), "-W", "ignore", "-c", _PROGRAM, *(str(part) for each in crates for part in each)]
    told = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    found: list[dict[str, Any]] = json.loads(told.stdout.splitlines()[-1])
    return found


class Crate:
    """A crate as it is fetched, and its document."""

    def __init__(self, client: ContractClient, job_id: str, **params: str) -> None:
        self.url = f"/jobs/{job_id}/ro-crate"
        answer = client.get(self.url, params=params, headers={"Accept": "application/zip"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip"), answer.text
        self.content = answer.content
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            assert archive.testzip() is None
            self.files = {name: archive.read(name) for name in archive.namelist()}
        self.document = json.loads(self.files["ro-crate-metadata.json"])
        self.entities: dict[str, Any] = {entity["@id"]: entity for entity in self.document["@graph"]}
        assert len(self.entities) == len(self.document["@graph"])

    def saved(self, path: Path) -> Path:
        path.write_bytes(self.content)
        return path

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [entity for entity in self.entities.values() if kind in entity["@type"]]


def ids(value: Any) -> list[str]:
    return [each["@id"] for each in (value if isinstance(value, list) else [value])]
