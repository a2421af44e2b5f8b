"""What goes over the wire about a job's files."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.examples import OUTPUT_CHECKSUM, OUTPUT_PAGE, TABLE_PREVIEW, TEXT_PREVIEW

RuleName = Annotated[str, Field(min_length=1, max_length=256)]


class ListOutputs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prefix: str = Field(
        default="",
        max_length=4096,
        description="How the paths begin, in full: `results/`.",
        examples=["results/"],
    )
    all: bool = Field(default=False, description="Also paths with a name that begins with a dot.")
    declared: bool = Field(default=False, description="Only outputs of tasks that have finished.")
    rule: list[RuleName] = Field(
        default=[], max_length=100, description="Only outputs of tasks of these rules that have finished."
    )
    limit: int = Field(default=50, ge=1, le=500, description="At most this many files on a page.")
    cursor: str | None = Field(
        default=None, max_length=8192, description="`next_cursor` of the page before, with the same filters."
    )


class FetchOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["zip"] | None = Field(
        default=None,
        description="`zip`: a folder as one archive; the address ends with its slash.",
        json_schema_extra={"examples": ["zip"]},
    )
    all: bool = Field(
        default=False, description="With `format=zip`: also paths with a name that begins with a dot."
    )
    checksum: Literal["sha256"] | None = Field(
        default=None, description="Answers with the file's checksum instead of the file."
    )
    preview: bool = Field(
        default=False,
        description="Answers with the beginning of a table or a text as JSON, and with an image to show.",
    )


class OutputLinks(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    itself: str = Field(alias="self")


class OutputTask(BaseModel):
    """The task that has made a file."""

    number: int
    rule: str
    attempt: int = Field(description="The attempt of the job in which it has finished.")


class Output(BaseModel):
    """A file of the job's, as it was when it was looked at."""

    path: str = Field(description="Below the working directory; what is no UTF-8 in it shows as U+FFFD.")
    size: int = Field(description="In bytes.")
    modified_at: datetime
    task: OutputTask | None = Field(
        description="The finished task whose declared output it is, or is in; null for all other files."
    )
    links: OutputLinks = Field(description="`self` fetches the file, whatever its name is.")


class OutputChecksum(BaseModel):
    """A file of the job's and the checksum of its content."""

    model_config = ConfigDict(json_schema_extra={"examples": [OUTPUT_CHECKSUM]})

    path: str = Field(description="As in the list of outputs.")
    size: int = Field(description="In bytes.")
    modified_at: datetime
    sha256: str = Field(description="In hexadecimal digits.")
    links: OutputLinks


class TextPreview(BaseModel):
    """The first and the last lines of a text."""

    model_config = ConfigDict(json_schema_extra={"examples": [TEXT_PREVIEW]})

    kind: Literal["text"]
    size: int = Field(description="The file's, in bytes.")
    encoding: str = Field(description="As it seems: `utf-8`, `utf-16`, or `iso-8859-1` for all others.")
    first: list[str] = Field(description="At most 200 lines, without their ends, of 2,000 characters each.")
    last: list[str] = Field(description="At most 50, none of them in `first`.")
    is_whole: bool = Field(description="Nothing of the text is left out.")


class TablePreview(BaseModel):
    """The first rows of a table."""

    model_config = ConfigDict(json_schema_extra={"examples": [TABLE_PREVIEW]})

    kind: Literal["table"]
    size: int = Field(description="The file's, in bytes.")
    encoding: str
    delimiter: str = Field(description="What seems to separate its cells.")
    header: list[str] = Field(description="The first row; at most 100 cells of 200 characters.")
    rows: list[list[str]] = Field(description="At most 100; a row may be shorter or longer than the header.")
    columns: int = Field(description="Cells of the longest of these rows, those left out included.")
    is_whole: bool = Field(description="Nothing of the table is left out.")


class OutputPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [OUTPUT_PAGE]})

    items: list[Output]
    total: int = Field(description="All files that match, not only this page's; see `total_is_exact`.")
    total_is_exact: bool = Field(description="False: `total` is a lower bound: there are too many to count.")
    left_out: int = Field(description="Links, hard-linked files, pipes, devices and the like, not listed.")
    next_cursor: str | None = Field(
        description="Null on the last page. Among very many files a page may be short and not the last."
    )
