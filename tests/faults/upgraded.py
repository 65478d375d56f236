"""Version n+1 of a service: what a reviewer decided is said in a new form, and the old form is lifted to it.

python -m tests.faults.upgraded registration run
"""

from __future__ import annotations

import runpy
import sys
from typing import Any, ClassVar, Final, Literal

from contracts import confirmation

OLD: Final = confirmation.Reviewed.type
NEW: Final = "kaowu.confirmation.reviewed.v2"


class Reviewed(confirmation.Reviewed):
    """The new form; it cannot be told from the old one but by its type and one field more."""

    type: ClassVar[str] = NEW

    form: Literal["second"] = "second"


def _lift(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "form": "second"}


def upgrade() -> None:
    """Before any service is imported: from then on this process knows the new form."""
    confirmation.Reviewed = Reviewed  # type: ignore[misc]  # what the next version of the module will say
    from contracts import catalogue  # noqa: PLC0415

    known = catalogue.Catalogue(catalogue.EVENTS.values(), {OLD: _lift})
    catalogue._CATALOGUE, catalogue.EVENTS = known, known.events
    catalogue.look_up, catalogue.parse = known.look_up, known.parse


if __name__ == "__main__":
    upgrade()
    service, *words = sys.argv[1:]
    sys.argv = [f"services.{service}", *words]
    runpy.run_module(f"services.{service}", run_name="__main__", alter_sys=True)
