"""The root that a close publishes: the same for the same proofs, another for any change."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment.domain.proof_tree import ProofTree


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, word for word: split at the largest power of two below the number of leaves."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


def root_of(leaves: list[bytes]) -> bytes:
    tree = ProofTree()
    for leaf in leaves:
        tree.add(leaf)
    assert tree.leaves == len(leaves)
    return tree.root()


def leaves_of(count: int) -> list[bytes]:
    return [sha256(b"\x00" + number.to_bytes(4, "big")).digest() for number in range(count)]


@pytest.mark.parametrize("count", [*range(34), 63, 64, 65, 1000])
def test_the_streamed_root_is_the_defined_one(count: int) -> None:
    assert root_of(leaves_of(count)) == by_definition(leaves_of(count))


@given(st.integers(1, 60), st.data())
def test_any_altered_dropped_added_or_swapped_proof_changes_the_root(count: int, data: st.DataObject) -> None:
    leaves = leaves_of(count)
    root = root_of(leaves)
    place = data.draw(st.integers(0, count - 1))
    altered = [*leaves]
    altered[place] = sha256(altered[place]).digest()
    assert root_of(altered) != root
    assert root_of(leaves[:place] + leaves[place + 1 :]) != root
    assert root_of([*leaves, leaves[place]]) != root
    if count > 1:
        other = data.draw(st.integers(0, count - 1).filter(lambda n: n != place))
        swapped = [*leaves]
        swapped[place], swapped[other] = swapped[other], swapped[place]
        assert root_of(swapped) != root


@given(st.integers(1, 70), st.data())
def test_the_way_of_a_leaf_leads_to_the_root_and_to_no_other(count: int, data: st.DataObject) -> None:
    leaves = leaves_of(count)
    place = data.draw(st.integers(0, count - 1))
    tree = ProofTree(follow=place)
    for leaf in leaves:
        tree.add(leaf)
    root = tree.root()
    assert led_by_definition(leaves[place], place, count, list(tree.path)) == root
    if tree.path:
        bent = list(tree.path)
        at = data.draw(st.integers(0, len(bent) - 1))
        bent[at] = sha256(bent[at]).digest()
        assert led_by_definition(leaves[place], place, count, bent) != root


def led_by_definition(leaf: bytes, place: int, count: int, path: list[bytes]) -> bytes:
    """RFC 6962's audit path from above: its last step parts the whole tree."""
    if count == 1:
        assert not path
        return leaf
    split = 1
    while split * 2 < count:
        split *= 2
    *below, beside = path
    if place < split:
        return sha256(b"\x01" + led_by_definition(leaf, place, split, below) + beside).digest()
    return sha256(b"\x01" + beside + led_by_definition(leaf, place - split, count - split, below)).digest()
