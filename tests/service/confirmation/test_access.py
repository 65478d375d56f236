"""Who may call what: every role at every route."""

from __future__ import annotations

from contracts.refusals import Code
from tests.service.confirmation.system import System

ONE, OTHER = "018c0000-0000-7000-8000-000000000001", "018c0000-0000-7000-8000-000000000002"
ROLES = [
    f"candidate:{ONE}", f"candidate:{OTHER}", "candidate", "desk:shizhong", "desk:ebian", "desk",
    "reviewer:site", "reviewer:district", "reviewer", "office", "ops", "service",
]  # fmt: skip
ROUTES = {
    ("POST", f"/desks/shizhong/cases/{ONE}/confirm"): {"desk:shizhong"},
    ("POST", f"/desks/shizhong/cases/{ONE}/return"): {"desk:shizhong"},
    ("POST", f"/desks/shizhong/cases/{ONE}/reject"): {"desk:shizhong"},
    ("GET", f"/desks/shizhong/cases/{ONE}"): {"desk:shizhong"},
    ("GET", "/desks/shizhong/cases"): {"desk:shizhong"},
    ("POST", "/review/site/decisions"): {"reviewer:site"},
    ("GET", f"/review/site/cases/{ONE}"): {"reviewer:site"},
    ("GET", f"/cases/{ONE}"): {f"candidate:{ONE}", "office"},
    ("POST", "/office/desk-windows/shizhong"): {"office"},
    ("POST", f"/office/desk-windows/shizhong/{ONE}/approve"): {"office"},
    ("POST", f"/office/desk-windows/shizhong/{ONE}/reject"): {"office"},
    ("GET", "/office/cases"): {"office"},
    ("GET", "/office/undecided"): {"office"},
}


async def test_only_the_named_roles_come_in(system: System) -> None:
    for (method, path), welcome in ROUTES.items():
        nobody = await system.call(method, path, None)
        assert (nobody.status_code, nobody.json()["code"]) == (401, Code.UNAUTHENTICATED)
        for role in ROLES:
            answer = await system.call(method, path, role)
            kept_out = answer.status_code == 403 and answer.json()["code"] == Code.FORBIDDEN
            assert kept_out is (role not in welcome), f"{role} at {path}: {answer.status_code}"


def test_every_route_of_the_service_is_in_that_table() -> None:
    from services.confirmation.api import routes  # noqa: PLC0415  # named here, not used elsewhere

    templates = {
        path.replace("shizhong", "{site_id}")
        .replace("/review/site", "/review/{level}")
        .replace(f"{{site_id}}/{ONE}", "{site_id}/{ask_id}")
        .replace(ONE, "{registration_id}")
        for _, path in ROUTES
    }
    router = routes(None, None, None, lambda: None)  # type: ignore[arg-type]  # only its routes are looked at
    assert {route.path for route in router.routes} == templates  # type: ignore[attr-defined]  # all are APIRoute
