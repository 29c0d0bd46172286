"""The server's clock, from Dates of whole seconds."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from careen.kube.clock import ServerClock


@given(
    offset=st.floats(1e9, 2e9),
    trips=st.lists(st.tuples(st.floats(0, 600), st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=20),
)
def test_never_ahead_and_at_most_a_second_and_the_best_answers_way_behind(offset, trips):
    clock = ServerClock()
    mono, best = 1000.0, 99.0
    for pause, there, back in trips:
        sent = mono + pause
        date = datetime.fromtimestamp(int(offset + sent + there), UTC)
        mono = sent + there + back
        clock.observe(date, mono, sent)
        best = min(best, 1.0 + back)
        error = clock.now(mono) - (offset + mono)
        assert -best - 1e-3 <= error <= 1e-3


def test_a_server_whose_clock_was_set_back_is_believed():
    clock = ServerClock()
    clock.observe(datetime.fromtimestamp(5000, UTC), 10.0, 10.0)
    clock.observe(datetime.fromtimestamp(4000, UTC), 20.0, 20.0)
    assert clock.now(20.0) == 4000.0
    clock.observe(None, 30.0)
    assert clock.now(30.0) == 4010.0
