"""Who may lead: the decisions alone, and the loop against a server that fails."""

import pytest

from careen.kube.lease import Claim, LeaseRecord, Observation, decide, next_term


def seen(holder: str, since: float = 100.0, duration: float = 15.0) -> Observation:
    return Observation(LeaseRecord(holder, duration, 3, "7"), since)


@pytest.mark.parametrize(
    ("observation", "now", "claim"),
    [
        (None, 100.0, Claim.TAKE),
        (seen(""), 100.0, Claim.TAKE),
        (seen("me"), 100.0, Claim.TAKE),
        (seen("other"), 100.0, Claim.WAIT),
        (seen("other"), 115.0, Claim.WAIT),
        (seen("other"), 115.1, Claim.TAKE),
        (seen("other", duration=1.0), 101.1, Claim.TAKE),
    ],
)
def test_claims(observation, now, claim):
    assert decide(observation, "me", now) is claim


@pytest.mark.parametrize(
    ("record", "floor", "term"),
    [(None, 0, 1), (None, 8, 9), (LeaseRecord("", 15, 3, "7"), 0, 4), (LeaseRecord("", 15, 3, "7"), 8, 9)],
)
def test_terms_rise_above_the_lease_and_the_floor(record, floor, term):
    assert next_term(record, floor) == term


def test_a_lease_with_nothing_in_it_is_free():
    assert LeaseRecord.read({"metadata": {"resourceVersion": "1"}}) == LeaseRecord("", 0.0, 0, "1")
