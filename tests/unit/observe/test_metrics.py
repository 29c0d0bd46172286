"""The metrics' page, and what an exposition says."""

from pathlib import Path

from prometheus_client import generate_latest

from careen.observe import metrics
from careen.observe.document import describe_metrics

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_page_is_what_the_metrics_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == describe_metrics(), "run `make crds`"


def test_a_reason_that_is_gone_disappears() -> None:
    metrics.show_blocked({("workers", "LockFull"): 3})
    metrics.show_blocked({("workers", "Paused"): 1})
    text = generate_latest(metrics.REGISTRY).decode()
    assert 'careen_blocked_nodes{policy="workers",reason="Paused"} 1.0' in text
    assert "LockFull" not in text


def test_a_deleted_policy_and_lock_leave_no_series() -> None:
    metrics.show_policy("gone", {"selected": 4}, halted=True)
    metrics.show_lock("gone", 3, 1)
    metrics.forget_policy("gone")
    metrics.forget_lock("gone")
    assert '"gone"' not in generate_latest(metrics.REGISTRY).decode()
