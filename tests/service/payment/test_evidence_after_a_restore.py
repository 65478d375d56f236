"""A database put back to a backup proves what the backup held, under the roots that were published, and says why not the rest."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from contracts import payment
from deploy.evidence.making import make
from deploy.evidence.reaching import CannotProve, Reach
from deploy.evidence.verifying import verify
from deploy.local.databases import DatabaseLogin
from services.payment.handlers import closing
from services.payment.repository import closing as sweeping
from tests.service.payment.backups import Backups
from tests.service.payment.proving import LAST, bytes_of, forfeited, root_of, told, written
from tests.service.payment.system import CLOSES, System, moment


async def restored(system: System, reach: Reach, backups: Backups, backup: DatabaseLogin) -> Reach:
    """On that backup, caught up from the topics and recovered at the gateways."""
    await backups.restore(backup, caught_up=True)
    await system.settle()
    await system.close()
    return replace(reach, payment=system.database)


async def held_then_denied(system: System, reach: Reach) -> UUID:
    """At the close the gateway does not answer; two hours later it says no."""
    candidate = await system.owing()
    system.at(LAST)
    await system.ordered(candidate)
    system.at(CLOSES)
    system.gateway_down(600)
    await system.close()
    assert await system.status(candidate) == "held"
    return candidate


async def decided(system: System, reach: Reach, candidate: UUID) -> None:
    system.clock.jump(moment(CLOSES) + timedelta(hours=2))
    await system.settle()
    await system.close()
    assert await system.status(candidate) == "expired"
    await told(system, reach, candidate)


async def test_what_a_backup_after_the_close_holds_is_proven_by_the_root_that_was_published(
    system: System, reach: Reach, backups: Backups
) -> None:
    candidate = await forfeited(system, reach, others=4)
    root = await root_of(system)
    before = await written(system, reach, candidate)
    reach = await restored(system, reach, backups, await backups.take())
    content = await written(system, reach, candidate)
    assert verify(bytes_of(content), root).problems == []
    assert {**content, "checksums": 0, "digest": 0} == {**before, "checksums": 0, "digest": 0}
    assert await system.words(system.cycle.id) == ["window-closed"], "nothing is published once more"


async def test_who_was_forfeited_in_the_backup_and_published_after_it_is_proven_by_the_root_on_the_topic(
    system: System, reach: Reach, backups: Backups
) -> None:
    """The backup is from between the sweep and the root: the root comes from the topic, the leaves from the backup."""
    many = await system.approved(3)
    system.at(CLOSES)
    await closing.sweep(system.database, system.cycle, moment(CLOSES))
    async with system.other_session() as uow:
        await sweeping.begin(uow, system.cycle.id, moment(CLOSES), system.cycle.fingerprint, None)
    backup = await backups.take()
    await system.close()
    root = await root_of(system)
    reach = await restored(system, reach, backups, backup)
    assert await root_of(system) == root
    closings = await system.rows("select sequence, begun_at from closings")
    numbers = await system.rows("select sequence from cycle_versions")
    assert [row["sequence"] for row in (*closings, *numbers)] == [1, 1], (
        "the numbers of the cycle's own events are the topic's"
    )
    for one in many:
        assert verify(bytes_of(await written(system, reach, one)), root).problems == []


async def test_who_fell_after_the_backup_is_counted_under_the_root_and_not_proven_any_more(
    system: System, reach: Reach, backups: Backups
) -> None:
    candidate = await held_then_denied(system, reach)
    early = (await system.approved(2))[0]
    await system.close()
    published = (await system.said(system.cycle.id))[-1]
    assert isinstance(published, payment.ProofsPublished)
    backup = await backups.take()
    await decided(system, reach, candidate)
    assert await system.words(system.cycle.id) == ["window-closed", "proofs-published", "proofs-published"]
    reach = await restored(system, reach, backups, backup)
    # Whoever is under a root whose leaves the backup has is proven still.
    assert verify(bytes_of(await written(system, reach, early)), published.proof_root).problems == []
    with pytest.raises(CannotProve, match="restored from events alone"):
        await make(reach, candidate, made_at=moment("2024-02-10 09:00"))
    assert [row["proofs"] for row in (await system.office("close"))["roots"]] == [0, 2, 1]
    await system.close()
    assert len(await system.words(system.cycle.id)) == 3, "nothing is published once more"


async def test_under_a_root_over_forfeitures_of_before_and_after_the_backup_nobody_is_proven_and_it_says_why(
    system: System, reach: Reach, backups: Backups
) -> None:
    await system.approved(5)
    system.at(CLOSES)
    async with system.other_session() as uow:
        assert await sweeping.sweep_chunk(uow, system.cycle.fingerprint, chunk=3) == 3
    (first, *_) = await system.rows("select registration_id from proofs")
    backup = await backups.take()
    await system.close()
    (event,) = await system.said(system.cycle.id)
    assert isinstance(event, payment.WindowClosed)
    assert event.proofs == 5
    reach = await restored(system, reach, backups, backup)
    with pytest.raises(CannotProve, match="2 forfeitures were restored from events alone"):
        await make(reach, first["registration_id"], made_at=moment("2024-02-10 09:00"))
