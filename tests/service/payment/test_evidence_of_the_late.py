"""Who is forfeited after the close was published, or once more after a revival, is proven offline as everybody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from contracts import payment
from deploy.evidence.form import sealed
from deploy.evidence.reaching import CannotProve, Reach
from deploy.evidence.verifying import verify
from services.payment.handlers import closing
from tests.service.payment.proving import LAST, STATED, bytes_of, forfeited, mutants, root_of, told, written
from tests.service.payment.system import CLOSES, System, moment
from tests.service.payment.two_people import Office


async def late_by_the_gateway(system: System, reach: Reach) -> tuple[UUID, str]:
    """Held at the close with somebody who never ordered, denied two hours later; and the root that was published then."""
    candidate, _ = await system.approved(2)
    system.at("2024-02-08 00:00")
    await system.remind()
    system.at(LAST)
    await system.ordered(candidate)
    system.at(CLOSES)
    system.gateway_down(600)
    await system.close()
    system.clock.jump(moment(CLOSES) + timedelta(hours=2))
    await system.settle()
    content = await written(system, reach, candidate) if await system.status(candidate) == "expired" else None
    assert content is None, "nobody is forfeited by asking"
    await system.close()
    assert await system.status(candidate) == "expired"
    await told(system, reach, candidate)
    closed, published = await system.said(system.cycle.id)
    assert isinstance(closed, payment.WindowClosed)
    assert isinstance(published, payment.ProofsPublished)
    return candidate, published.proof_root


async def test_whoever_is_forfeited_after_the_close_was_published_is_proven_by_a_root_of_their_own(
    system: System, reach: Reach
) -> None:
    candidate, root = await late_by_the_gateway(system, reach)
    content = await written(system, reach, candidate)
    verdict = verify(bytes_of(content), root)
    assert verdict.problems == []
    assert any("forfeited after the close was published" in note for note in verdict.notes)
    assert content["published"]["type"] == "kaowu.payment.proofs-published.v1"
    assert content["published"]["proofs_before"] == 1
    assert content["published"]["sums_fen"] == {"expired": 20_000}
    # Under the close's root it is not, nor may it pass for one that is.
    closed, _ = await system.said(system.cycle.id)
    assert isinstance(closed, payment.WindowClosed)
    assert [p.path for p in verify(bytes_of(content), closed.proof_root).problems] == ["published.proof_root"]
    (other,) = await system.rows("select registration_id from proofs where registration_id <> $1", candidate)
    of_the_close = await written(system, reach, other["registration_id"])
    assert verify(bytes_of(of_the_close), closed.proof_root).problems == []
    assert verify(bytes_of(sealed({**content, "published": of_the_close["published"]}))).problems


async def test_whoever_falls_after_the_cycle_file_was_changed_is_proven_by_the_new_one(
    system: System, reach: Reach, tmp_path: Path
) -> None:
    """Between the close and the gateway's answer the office has corrected its telephone number."""
    late, never = await system.approved(2)
    system.at(LAST)
    await system.ordered(late)
    system.at(CLOSES)
    system.gateway_down(600)
    await system.close()
    changed = tmp_path / "changed.toml"
    text = system.settings.cycle_file.read_text(encoding="utf-8")
    changed.write_text(text.replace("0833-2495079", "0833-2495080"), encoding="utf-8")
    await system.end()
    system.settings = system.settings.model_copy(update={"cycle_file": changed})
    system.start()
    assert system.cycle.fingerprint != reach.cycle.fingerprint
    system.clock.jump(moment(CLOSES) + timedelta(hours=2))
    await system.settle()
    await system.close()
    now = replace(reach, cycle=system.cycle, payment=system.database)
    content = await written(system, now, late)
    assert content["cycle"]["fingerprint"] == system.cycle.fingerprint
    assert verify(bytes_of(content)).problems == []
    before = replace(reach, payment=system.database)
    assert verify(bytes_of(await written(system, before, never))).problems == []
    for wrong, whose, why in (
        (now, never, "the cycle file is not the one"),
        (before, late, "a cycle file that is not at hand"),
    ):
        with pytest.raises(CannotProve, match=why):
            await written(system, wrong, whose)


async def test_every_altered_value_of_a_late_one_is_refused_unless_it_is_only_stated(
    system: System, reach: Reach
) -> None:
    candidate, root = await late_by_the_gateway(system, reach)
    content = await written(system, reach, candidate)
    kept = {
        k: v for k, v in content.items() if k not in {"checksums", "digest", "format", "version", "cycle"}
    }
    altered = mutants(kept)
    assert len(altered) > 100
    passed = set()
    for path, changed in altered:
        whole = {**content, **changed}
        assert path in {problem.path for problem in verify(bytes_of(whole), root).problems}, path
        if not verify(bytes_of(sealed(whole)), root).problems:
            passed.add(path)
    assert {path for path in passed if not STATED.fullmatch(path)} == set()
    assert "published.proofs_before" in passed


async def test_between_the_forfeiture_and_its_root_a_file_says_that_no_root_covers_it_yet(
    system: System, reach: Reach
) -> None:
    candidate = await system.owing()
    system.at(CLOSES)
    await closing.sweep(system.database, system.cycle, moment(CLOSES))
    content = await written(system, reach, candidate)
    assert (content["tree"], content["published"]) == (None, None)
    (problem,) = verify(bytes_of(content)).problems
    assert problem.found == "none: no published root covers this forfeiture"
    await system.close()
    assert verify(bytes_of(await written(system, reach, candidate)), await root_of(system)).problems == []


async def test_who_was_revived_and_falls_again_is_proven_by_their_new_close(
    system: System, reach: Reach
) -> None:
    """The order of the first time, and what its gateway said, belong to the second proof as well."""
    candidate = await forfeited(system, reach, others=2)
    first = await written(system, reach, candidate)
    office = Office(system)
    body = {"kind": "revive", "registration_id": str(candidate), "reason": "医院证明"}
    decision = (await office.call("office-li", "POST", "/office/decisions", body)).json()
    await office.approve(decision)
    await system.carry_out_job.run()
    assert await system.status(candidate) == "awaiting"
    system.at("2024-02-11 23:00")
    await system.remind()
    system.at("2024-02-13 00:00")
    await system.close()
    assert await system.words(candidate) == [
        "due", "closing-soon", "closing-soon", "expired", "reinstated", "closing-soon", "expired",
    ]  # fmt: skip
    await told(system, reach, candidate)
    content = await written(system, reach, candidate, made_at="2024-02-13 09:00")
    assert content["forfeiture"]["proof_id"] != first["forfeiture"]["proof_id"]
    assert content["forfeiture"]["closes_at"] == "2024-02-12T16:00:00.000000Z"
    _, second = await system.said(system.cycle.id)
    assert isinstance(second, payment.WindowClosed)
    verdict = verify(bytes_of(content), second.proof_root)
    assert [str(problem) for problem in verdict.problems] == []
    assert any("it was moved by two people of the office" in note for note in verdict.notes)
    # The first file, written while it held, holds still: that forfeiture was, and is under its root.
    closed, _ = await system.said(system.cycle.id)
    assert isinstance(closed, payment.WindowClosed)
    assert verify(bytes_of(first), closed.proof_root).problems == []
    assert verify(bytes_of(first), second.proof_root).problems
    # What came too late for the first close is in time for the second: the first forfeiture, proven with it, says why not.
    assert any("after the earlier close 2024-02-08T16:00:00" in note for note in verdict.notes)
    without = verify(bytes_of(sealed({**content, "earlier": []})), second.proof_root).problems
    assert ["no payment in time and in full" in problem.expected for problem in without] == [True]
    kept = {k: v for k, v in content.items() if k in {"earlier", "registration_id"}}
    altered = [(path, {**content, **changed}) for path, changed in mutants(kept)]
    passed = {
        path for path, whole in altered if not verify(bytes_of(sealed(whole)), second.proof_root).problems
    }
    assert {path for path in passed if not STATED.fullmatch(path)} == set()
    assert len(altered) > 20
