"""The exam cycle: one notice as validated data. It decides nothing; the services ask it."""

import hashlib
import json
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints

from contracts.cycle import lint, reading
from contracts.cycle.desks import Document, Employer, Name, Phone, PhotoRules, ReviewLevel, Site
from contracts.cycle.exam import Fee, Level, Mode, Paper, Returning, Specialty, Subject, Switches
from contracts.cycle.problems import Finding
from contracts.cycle.windows import Frozen, QuietHours, Window, Windows


class Notice(Frozen):
    """Where all this was announced."""

    title: Name
    website: Name


class Cycle(Frozen):
    """Read it with `Cycle.read`: only that checks what its parts say of each other."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}(-[a-z]+)+$", max_length=48)]
    name: Name
    time_zone: Name
    currency: Literal["CNY"]
    contact_phone: Phone
    notice: Notice
    windows: Windows
    sites: Annotated[tuple[Site, ...], Field(min_length=1)]
    employers: tuple[Employer, ...] = ()
    documents: tuple[Document, ...]
    review_levels: Annotated[tuple[ReviewLevel, ...], Field(min_length=1)]
    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)]
    subjects: Annotated[tuple[Subject, ...], Field(min_length=1)]
    specialties: Annotated[tuple[Specialty, ...], Field(min_length=1)]
    fees: Annotated[tuple[Fee, ...], Field(min_length=1)]
    returning: tuple[Returning, ...]
    papers: tuple[Paper, ...]
    photo: PhotoRules
    quiet_hours: QuietHours
    switches: Switches

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The cycle in this file. CycleInvalid with every problem of the file, if it has any."""
        return reading.read(cls, Path(path))

    def lint(self) -> tuple[Finding, ...]:
        """What is allowed and yet likely to hurt somebody: dead ends, undated desks, overlaps."""
        return lint.findings(self)

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the file says, whatever its order, comments and offsets."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def site(self, site_id: str) -> Site:
        return self._sites[site_id]

    def specialty(self, code: str) -> Specialty:
        return self._specialties[code]

    def level(self, level_id: str) -> Level:
        return self._levels[level_id]

    def mode(self, mode_id: str) -> Mode:
        return self._modes[mode_id]

    def review_level(self, level_id: str) -> ReviewLevel:
        return self._review_levels[level_id]

    def document(self, document_id: str) -> Document:
        return self._documents[document_id]

    def subject(self, number: int) -> Subject:
        return self._subjects[number]

    def returning_rule(self, level_id: str) -> Returning:
        return self._returning[level_id]

    def fee_fen(self, level: str, subjects: Collection[int], mode: str) -> int:
        """What these subjects cost. KeyError for a level or mode that the cycle does not have."""
        per_subject, per_candidate = self._fees[level, mode]
        return per_subject * len(subjects) + per_candidate

    def still_reachable(self, at: datetime) -> tuple[Site, ...]:
        """Desks, as the file dates them, at which somebody who pre-registers now can still be confirmed."""
        return tuple(site for site in self.sites if site.window is None or not site.window.has_closed(at))

    def is_quiet(self, at: datetime) -> bool:
        return self.quiet_hours.cover(at.astimezone(self.zone).time())

    def quiet_until(self, at: datetime) -> datetime:
        """The end of the quiet hours that cover this moment; the moment itself if none do."""
        if not self.is_quiet(at):
            return at
        local = at.astimezone(self.zone)
        ends = datetime.combine(local.date(), self.quiet_hours.ends, self.zone)
        return ends if ends > local else ends + timedelta(days=1)

    @property
    def last_paper_ends_at(self) -> datetime | None:
        return max((paper.ends for paper in self.papers), default=None)

    def confirmation_window(self, site: Site) -> Window:
        """The desk's window; the overall one for a desk that has none."""
        return site.window or self.windows.confirmation

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cycle):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    @cached_property
    def _sites(self) -> MappingProxyType[str, Site]:
        return MappingProxyType({site.id: site for site in self.sites})

    @cached_property
    def _specialties(self) -> MappingProxyType[str, Specialty]:
        return MappingProxyType({specialty.code: specialty for specialty in self.specialties})

    @cached_property
    def _levels(self) -> MappingProxyType[str, Level]:
        return MappingProxyType({level.id: level for level in self.levels})

    @cached_property
    def _modes(self) -> MappingProxyType[str, Mode]:
        return MappingProxyType({mode.id: mode for mode in self.modes})

    @cached_property
    def _review_levels(self) -> MappingProxyType[str, ReviewLevel]:
        return MappingProxyType({level.id: level for level in self.review_levels})

    @cached_property
    def _documents(self) -> MappingProxyType[str, Document]:
        return MappingProxyType({document.id: document for document in self.documents})

    @cached_property
    def _subjects(self) -> MappingProxyType[int, Subject]:
        return MappingProxyType({subject.number: subject for subject in self.subjects})

    @cached_property
    def _returning(self) -> MappingProxyType[str, Returning]:
        return MappingProxyType({rule.level: rule for rule in self.returning})

    @cached_property
    def _fees(self) -> MappingProxyType[tuple[str, str], tuple[int, int]]:
        """(per subject, per candidate) of every level and mode."""
        return MappingProxyType(
            {
                (level.id, mode.id): (
                    sum(fee.amount_fen for fee in self._fees_of(level, mode) if fee.per == "subject"),
                    sum(fee.amount_fen for fee in self._fees_of(level, mode) if fee.per == "candidate"),
                )
                for level in self.levels
                for mode in self.modes
                if self._fees_of(level, mode)
            }
        )

    def _fees_of(self, level: Level, mode: Mode) -> list[Fee]:
        return [fee for fee in self.fees if fee.applies(level.id, mode.id)]
