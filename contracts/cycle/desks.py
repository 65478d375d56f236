"""Where and with what a candidate is confirmed and reviewed: sites, employers, documents, photo, levels."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from contracts.cycle.windows import Frozen, Window

Id = Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S(.*\S)?$")]
Phone = Annotated[str, StringConstraints(pattern=r"^[0-9][0-9-]{4,19}$")]
Pixels = Annotated[int, Field(strict=True, ge=1, le=20_000)]
Bytes = Annotated[int, Field(strict=True, ge=1, le=50_000_000)]


class Site(Frozen):
    """A desk (报名点). One without a window is undated: `undated_note` says who will name the days."""

    id: Id
    name: Name
    place: Name | None = None
    phone: Phone | None = None
    window: Window | None = None
    undated_note: Name | None = None

    @property
    def undated(self) -> bool:
        return self.window is None


class Employer(Frozen):
    """An employer that the notice sends to a certain desk by name."""

    name: Name
    site: Id


class Document(Frozen):
    """A line of the checklist. A needed one that is missing stops the confirmation."""

    id: Id
    name: Name
    needed: Annotated[bool, Field(strict=True)]
    note: Name | None = None


class ReviewLevel(Frozen):
    id: Id
    name: Name


class SourcePhoto(Frozen):
    """The file as it leaves the camera or the photographer."""

    min_bytes: Bytes
    min_width: Pixels
    min_height: Pixels


class ProcessedPhoto(Frozen):
    """The file as the registration keeps it."""

    min_bytes: Bytes
    max_bytes: Bytes
    width: Pixels
    height: Pixels
    tolerance: Annotated[int, Field(strict=True, ge=0, le=1000)]


class PhotoRules(Frozen):
    format: Literal["jpeg"]
    background: Name
    pose: Name
    not_accepted: tuple[Name, ...]
    source: SourcePhoto
    processed: ProcessedPhoto
