"""The way from a leaf to a root that was published, and the event that published it: by a close, or after it."""

from __future__ import annotations

from typing import Final

from deploy.evidence.form import Evidence, PublishedPart, TreePart, compact, is_moment
from deploy.evidence.leaf import V1, V2, leaf_hash, root_from
from deploy.evidence.verdict import Verdict

_TOPIC: Final = "exam.payment"
_CLOSED: Final = "kaowu.payment.window-closed.v1"
_LATER: Final = "kaowu.payment.proofs-published.v1"
ROOTS: Final = frozenset({_CLOSED, _LATER})
"""What publishes a root."""
_SECTIONS: Final = {V1: 8, V2: 12}


def check_roots(verdict: Verdict, evidence: Evidence, root: str | None) -> None:
    """This forfeiture is under a root, and so are those of the same registration before it. `root`: from elsewhere."""
    tree, published, facts = evidence.tree, evidence.published, evidence.forfeiture
    if root is not None and published is not None:
        verdict.same("published.proof_root", root, published.proof_root, "--root")
    if tree is None or published is None:
        verdict.add(
            "tree" if tree is None else "published",
            "the way to a root that was published",
            "none: no published root covers this forfeiture",
        )
    else:
        _leads(verdict, "", evidence.leaf.hash, tree, published)
        _published(verdict, evidence, "", published, facts.closes_at, facts.expired_at)
        if root is None:
            verdict.notes.append(
                f"the root {published.proof_root} was taken from the file itself: compare it with the one of event "
                f"{published.event_id} on {published.topic}, or with the office's notice, by --root"
            )
    for place, one in enumerate(evidence.earlier):
        at = f"earlier[{place}]."
        verdict.same(f"{at}leaf.hash", leaf_hash(one.leaf.text), one.leaf.hash)
        _leads(verdict, at, one.leaf.hash, one.tree, one.published)
        sections = one.leaf.text.split("|")
        if len(sections) != _SECTIONS.get(sections[0]):
            verdict.add(f"{at}leaf.text", f"a leaf of the form {V2} or {V1}", sections[0])
            continue
        verdict.same(f"{at}leaf.text", evidence.registration_id, sections[2], "the registration of this file")
        closes_at = earlier_close(one.leaf.text)
        expired_at = _spelt(sections[9]) if sections[0] == V2 else facts.expired_at
        if not is_moment(closes_at) or not is_moment(expired_at):
            verdict.add(f"{at}leaf.text", "the moments of a forfeiture", f"{closes_at}, {expired_at}")
            continue
        verdict.not_before(f"{at}leaf.text", expired_at, facts.expired_at)
        verdict.not_before(f"{at}leaf.text", closes_at, facts.closes_at)
        _published(verdict, evidence, at, one.published, closes_at, expired_at)
        verdict.notes.append(
            f"forfeited before, by the close {closes_at}, and revived: under the root {one.published.proof_root} of event "
            f"{one.published.event_id}; compare that one as well"
        )


def earlier_close(text: str) -> str:
    """The close that a leaf's text binds, as the file writes moments; of a text that binds none, no moment."""
    return _spelt("".join(text.split("|")[3:4]))


def _spelt(moment: str) -> str:
    day, _, time = compact(moment).partition("T")
    return f"{day[:4]}-{day[4:6]}-{day[6:8]}T{time[:2]}:{time[2:4]}:{time[4:]}"


def _leads(verdict: Verdict, at: str, leaf: str, tree: TreePart, published: PublishedPart) -> None:
    led = root_from(leaf, tree.index, tree.leaves, tree.path)
    if led != published.proof_root:
        verdict.add(
            f"{at}tree",
            f"a way from the leaf to {published.proof_root}",
            f"one to {led}" if led else "one of another place",
        )
    verdict.same(f"{at}tree.leaves", published.proofs, tree.leaves)


def _published(
    verdict: Verdict, evidence: Evidence, at: str, published: PublishedPart, closes_at: str, expired_at: str
) -> None:
    verdict.same(f"{at}published.topic", _TOPIC, published.topic)
    verdict.same(f"{at}published.key", evidence.cycle.id, published.key)
    if published.type == _CLOSED:
        _by_the_close(verdict, at, published, closes_at, expired_at)
    elif published.type == _LATER:
        verdict.not_before(f"{at}published.occurred_at", expired_at, published.occurred_at)
        _after_the_close(verdict, at, published)
    else:
        verdict.add(f"{at}published.type", f"{_CLOSED} or {_LATER}", published.type)


def _by_the_close(
    verdict: Verdict, at: str, published: PublishedPart, closes_at: str, expired_at: str
) -> None:
    verdict.same(f"{at}published.closes_at", closes_at, published.closes_at)
    verdict.same(f"{at}published.proofs_before", None, published.proofs_before)
    if published.closed_at is None:
        verdict.add(f"{at}published.closed_at", "the moment of the close", None)
        return
    verdict.not_before(f"{at}published.closed_at", expired_at, published.closed_at)
    verdict.not_before(f"{at}published.occurred_at", published.closed_at, published.occurred_at)


def _after_the_close(verdict: Verdict, at: str, published: PublishedPart) -> None:
    """Held until the gateway answered, or approved late: the close was published before."""
    for name, nothing in (("closes_at", None), ("closed_at", None), ("counts", {})):
        verdict.same(f"{at}published.{name}", nothing, getattr(published, name))
    verdict.same(f"{at}published.sums_fen", ["expired"], sorted(published.sums_fen))
    if published.proofs_before is None:
        verdict.add(f"{at}published.proofs_before", "how many proofs the roots before it cover", None)
    if not at:
        verdict.notes.append(
            "forfeited after the close was published (held until the gateway answered, or the approval was heard of late): "
            "under a root of its own"
        )
