"""Who notifies while the database cannot say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.notify.office import Claim, acts

CUT = st.builds(Claim, st.uuids().map(str), st.just(False), st.just(False), st.integers(0, 3))


@given(st.lists(CUT, min_size=1, max_size=5, unique_by=lambda claim: claim.replica))
def test_of_replicas_that_hear_each_other_exactly_one_acts(claims: list[Claim]) -> None:
    """All cut off from the database: the one with the latest term, else the lowest id."""
    acting = [one for one in claims if acts(one, [other for other in claims if other is not one])]
    assert acting == [min(claims, key=lambda claim: (-claim.term, claim.replica))]


@given(CUT, st.lists(CUT, max_size=4))
def test_who_reaches_the_database_goes_before_all(own: Claim, others: list[Claim]) -> None:
    """As long as one replica reaches it, leading already or not yet, no other acts without it."""
    connected = Claim("other", connected=True)
    assert not acts(own, [*others, connected])


def test_who_hears_nobody_acts() -> None:
    """A message sent twice is better than none; one's own voice is nobody's."""
    own = Claim("me", term=3)
    assert acts(own, [])
    assert acts(own, [Claim("me", connected=True, leading=True, term=3)])


@given(st.builds(Claim, st.text(), st.booleans(), st.booleans(), st.integers()))
def test_a_claim_goes_over_the_wire(claim: Claim) -> None:
    """JSON and back."""
    assert Claim.from_json(claim.to_json()) == claim


@pytest.mark.parametrize("document", [None, [], {}, {"replica": "a"}, Claim("a").to_json() | {"term": "1"}])
def test_what_is_no_claim_is_refused(document: object) -> None:
    """Another program that answers there claims nothing."""
    with pytest.raises(ValueError, match="not a claim"):
        Claim.from_json(document)
