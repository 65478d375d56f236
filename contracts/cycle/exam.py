"""What is examined and what it costs: levels, subjects, specialties, fees, papers."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from contracts.cycle.desks import Id, Name
from contracts.cycle.windows import Frozen, Moment

Number = Annotated[int, Field(strict=True, ge=1, le=20)]
Code = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{2,8}$")]


class Level(Frozen):
    id: Id
    name: Name


class Mode(Frozen):
    """How an exam is written; `specialties` is how many the notice counts, if it counts."""

    id: Id
    name: Name
    specialties: Annotated[int, Field(strict=True, ge=0)] | None = None


class Subject(Frozen):
    number: Number
    name: Name


class Specialty(Frozen):
    """`status`: how well code and name are known: verified, or only inside a range of codes that is."""

    code: Code
    name: Name
    level: Id
    mode: Id
    status: Literal["verified", "code-range"]


class Fee(Frozen):
    """An item of the fee. It applies where its conditions hold; no condition holds everywhere."""

    name: Name
    amount_fen: Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
    per: Literal["subject", "candidate"]
    levels: Annotated[tuple[Id, ...], Field(min_length=1)] | None = None
    modes: Annotated[tuple[Id, ...], Field(min_length=1)] | None = None

    def applies(self, level: str, mode: str) -> bool:
        return (self.levels is None or level in self.levels) and (self.modes is None or mode in self.modes)


class Returning(Frozen):
    """Who of a level may take fewer than all subjects: results count for so many exam years in a row."""

    level: Id
    consecutive_years: Annotated[int, Field(strict=True, ge=1, le=10)]
    first_time_takes_all: Annotated[bool, Field(strict=True)]


class Paper(Frozen):
    """One paper of one sitting. A candidate of the mode sits every paper of exactly one session."""

    session: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
    mode: Id
    subject: Number
    starts: Moment
    ends: Moment


class Switches(Frozen):
    """Where other notices of the same family decide otherwise."""

    auto_confirm: Annotated[bool, Field(strict=True)]
    on_missed: Literal["lapse"]
