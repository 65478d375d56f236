"""What every event has in common, and the narrow types its fields may have.

A field type here is a promise that no sentence, name, ID number or phone number fits into it.
"""

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Annotated, ClassVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from contracts import ids
from contracts.envelope import Envelope


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]

# A word, or words joined by "-": no digits, so no number of a person can be one.
Word = Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=32)]
CycleId = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}(-[a-z]+)+$", max_length=48)]
SiteId = Word
ExamLevel = Word  # of the specialty: junior-assistant, junior, intermediate
ReviewLevel = Word  # who decided: desk, site, district
SpecialtyCode = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{2,8}$")]
# Longer than any number of a person, no longer than any gateway takes.
OrderNo = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{20,32}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

Fen = Annotated[int, Field(strict=True, ge=1, le=100_000_000)]
FenSum = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000_000_000)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Version = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
SubjectNumber = Annotated[int, Field(strict=True, ge=1, le=20)]
Subjects = Annotated[tuple[SubjectNumber, ...], Field(min_length=1, max_length=20)]


def schema_of(type_: str) -> str:
    """Relative path of the committed JSON Schema of this type, also of one that only older events have."""
    service, fact = type_.removeprefix("kaowu.").split(".", 1)
    return f"contracts/schemas/{service}/{fact}.json"


class Part(BaseModel):
    """A group of fields inside an event."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Event(BaseModel, ABC):
    """A fact. Readers ignore fields they do not know: optional ones may be added within a major version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ClassVar[str]
    topic: ClassVar[str]
    source: ClassVar[str]

    cycle_id: CycleId

    @property
    def envelope(self) -> Envelope:
        """What came with the event on the wire."""
        private = self.__pydantic_private__
        if private is None:
            raise LookupError(f"this {self.type} was made here, it has not come over the wire")
        envelope: Envelope = private["envelope"]
        return envelope

    @property
    @abstractmethod
    def key(self) -> str:
        """Key of the record on its topic: events of one key keep their order."""

    @classmethod
    def dataschema(cls) -> str:
        """Relative path of the committed JSON Schema of what is written."""
        return schema_of(cls.type)

    def carried_by(self, envelope: Envelope) -> None:
        """Called once, by the catalogue, right after parsing."""
        # Kept where Pydantic keeps private attributes, and not declared as one: then every class in the line would give it a
        # default of its own first, for every event.
        object.__setattr__(self, "__pydantic_private__", {"envelope": envelope})

    # Two events are equal if they say the same. Pydantic would compare the envelope too.
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))


class RegistrationEvent(Event):
    """A fact about one registration."""

    registration_id: UUID

    @property
    def key(self) -> str:
        return ids.to_text(self.registration_id)


class SiteEvent(Event):
    """A fact about one desk of a cycle."""

    site_id: SiteId

    @property
    def key(self) -> str:
        return f"{self.cycle_id}:{self.site_id}"


class CycleEvent(Event):
    """A fact about a whole cycle."""

    @property
    def key(self) -> str:
        return self.cycle_id
