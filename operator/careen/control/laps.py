"""What the stopwatch has seen, put into the metrics."""

from careen.observe import metrics

from .stopwatch import DrainEnded, HandedOver, Lap, LockWaited, PhasePassed, Rebooted, UpdateEnded


def record_lap(lap: Lap) -> None:
    """Put one lap into its metric."""
    match lap:
        case PhasePassed(phase, seconds):
            metrics.record_phase(phase, seconds)
        case DrainEnded(outcome, seconds):
            metrics.record_drain(outcome, seconds)
        case Rebooted(method, seconds):
            metrics.record_reboot(method, seconds)
        case LockWaited(lock, seconds):
            metrics.record_wait(lock, seconds)
        case HandedOver(lock, seconds):
            metrics.record_handover(lock, seconds)
        case UpdateEnded(policy, cause):
            metrics.record_update(policy, cause)
