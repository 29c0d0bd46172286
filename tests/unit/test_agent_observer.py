"""What an agent's metrics make of its work."""

from prometheus_client import generate_latest

from careen.agent.actions import MarkGood
from careen.agent.observer import MetricsObserver
from careen.agent.record import Moved
from careen.disk.types import SlotName
from careen.observe.agent import AgentMetrics


def test_bytes_count_once_however_often_the_progress_is_told() -> None:
    metrics = AgentMetrics()
    observer = MetricsObserver(metrics)
    for moved in (Moved(fetched=10), Moved(fetched=10, reused=5), Moved(fetched=30, reused=5)):
        observer.note_progress("o1", moved)
    observer.note_progress("o1", Moved(fetched=8))
    observer.note_progress("o2", Moved(skipped=4))
    text = generate_latest(metrics.registry).decode()
    assert 'staged_bytes_total{source="fetched"} 38.0' in text, "a try that begins anew moves its bytes again"
    assert 'staged_bytes_total{source="reused"} 5.0' in text
    assert 'staged_bytes_total{source="skipped"} 4.0' in text


def test_a_failed_step_counts_with_its_class() -> None:
    metrics = AgentMetrics()
    observer = MetricsObserver(metrics)
    observer.note_step(MarkGood(SlotName.A), 0.2, None)
    observer.note_step(MarkGood(SlotName.A), 0.2, "Disk")
    text = generate_latest(metrics.registry).decode()
    assert 'careen_agent_steps_total{outcome="done",step="MarkGood"} 1.0' in text
    assert 'careen_agent_steps_total{outcome="failed",step="MarkGood"} 1.0' in text
    assert 'careen_agent_failures_total{class="Disk"} 1.0' in text
