"""Which desk a candidate can still reach. A pre-registration for a desk that has ended would be a dead end."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts.cycle import Cycle, Site
from contracts.refusals import Code, Json, Refused


@dataclass(frozen=True, slots=True)
class Hours:
    """What the office set for a desk, in place of what the cycle file says."""

    opens: datetime
    closes: datetime


@dataclass(frozen=True, slots=True)
class Desk:
    """A desk with the window that holds now; none for an undated one: the candidate's employer will name the days."""

    site: Site
    hours: Hours | None

    def ends_at(self, cycle: Cycle) -> datetime:
        """The first moment at which nobody can be confirmed here any more, as far as is known today."""
        return self.hours.closes if self.hours else cycle.windows.confirmation.closes

    def has_ended(self, cycle: Cycle, at: datetime) -> bool:
        return at >= self.ends_at(cycle)


@dataclass(frozen=True, slots=True)
class Desks:
    """All desks of the cycle, with what the office set since."""

    cycle: Cycle
    set_by_office: Mapping[str, Hours]

    def desk(self, site_id: str) -> Desk:
        """Raises KeyError for a desk the cycle does not have."""
        site = self.cycle.site(site_id)
        window = site.window
        of_cycle = Hours(window.opens, window.closes) if window else None
        return Desk(site, self.set_by_office.get(site_id, of_cycle))

    def reachable(self, at: datetime) -> list[Desk]:
        desks = (self.desk(site.id) for site in self.cycle.sites)
        return [desk for desk in desks if not desk.has_ended(self.cycle, at)]

    def refuse_dead_end(self, site_id: str, at: datetime) -> None:
        """Raises Refused with the desks that still can be reached, earliest end first, undated ones last."""
        desk = self.desk(site_id)
        if not desk.has_ended(self.cycle, at):
            return
        others = sorted(
            self.reachable(at), key=lambda other: (other.hours is None, other.ends_at(self.cycle))
        )
        hints: list[Json] = [
            {
                "id": other.site.id,
                "name": other.site.name,
                "closes": other.hours.closes.astimezone(UTC).isoformat() if other.hours else None,
            }
            for other in others
        ]
        todo = (
            "请按所属机构另选仍可现场确认的报名点。"
            if others
            else f"目前已没有可以现场确认的报名点，请致电考点 {self.cycle.contact_phone}。"
        )
        raise Refused(
            Code.DESK_CLOSED,
            f"报名点“{desk.site.name}”的现场确认已经结束，选择该报名点将无法完成现场确认。{todo}",
            hints={"desks": hints},
        )
