"""What a run begins with, all of it drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .dice import Dice
from .releases import CHANNEL, FAULTS, REPOSITORY, SimRelease, make_release

PROFILES = ("calm", "operators", "machines", "people", "all", "all", "all")


@dataclass(frozen=True, slots=True)
class Setting:
    """A cluster and its policy. profile: what goes wrong; ends_well: people ask for a good release in the end."""

    profile: str
    machines: int
    control_plane: int
    lock: str
    lock_max: int
    pods: int
    disturbances: int
    span: float
    """Seconds in which the disturbances fall."""
    ends_well: bool
    strategy: dict[str, Any]
    times: dict[str, Any]
    channel: bool
    """Whether the policy follows a channel, and people move that instead of naming a version."""

    @property
    def calm(self) -> bool:
        """Whether nothing happens that could excuse the rollback of a healthy release."""
        return self.profile == "calm"

    def policy_spec(self, version: str, *, named: bool = False) -> dict[str, Any]:
        """An UpdatePolicy's spec that asks for this version, or for the channel in its stead unless it is named."""
        asks = {"channel": CHANNEL} if self.channel and not named else {"version": version}
        release = {"repository": REPOSITORY, "allowDowngrade": True, **asks}
        return {"selector": {"matchLabels": {"pool": "a"}}, "release": release, "strategy": self.strategy, **self.times}


def draw_setting(dice: Dice) -> Setting:
    """One setting."""
    profile = dice.pick(PROFILES)
    return Setting(
        profile=profile,
        machines=2 + dice.below(4),
        control_plane=dice.pick((0, 0, 0, 1, 2)),
        lock="default",
        lock_max=1 + dice.below(3),
        pods=dice.pick((0, 0, 2, 4)),
        disturbances=0 if profile == "calm" else dice.below(9) + (4 if profile == "all" else 0),
        span=dice.pick((60.0, 150.0, 400.0)),
        ends_well=dice.chance(0.6),
        strategy=_draw_strategy(dice),
        times={
            "readySeconds": dice.pick((0, 0, 3, 15)),
            "verifyTimeoutSeconds": dice.pick((30, 60, 200)),
            "boot": {
                "method": dice.pick(("Auto", "Firmware")),
                "commitTimeoutSeconds": dice.pick((20, 60, 120)),
                "onSilence": dice.pick(("Rollback", "Rollback", "Wait", "Commit")),
            },
            "drain": {"timeoutSeconds": dice.pick((20, 60, 200)), "retrySeconds": dice.pick((0, 30))},
            "failure": {"maxFailed": dice.pick((0, 0, 1, 3))},
        },
        channel=dice.chance(0.4),
    )


def _draw_strategy(dice: Dice) -> dict[str, Any]:
    strategy: dict[str, Any] = {
        "maxUnavailable": dice.pick((1, 1, 2, 3, "50%")),
        "maxStaging": dice.pick((1, 3, 10)),
        "lock": "default",
    }
    if dice.chance(0.4):
        strategy["topology"] = [{"key": "zone", "maxUnavailable": dice.pick((1, 1, "50%"))}]
    if dice.chance(0.5):
        waves: list[dict[str, Any]] = [{"name": "canary", "count": 1, "soakSeconds": dice.pick((0, 20))}]
        if dice.chance(0.5):
            waves.append({"name": "half", "percent": 50, "soakSeconds": dice.pick((0, 10))})
        strategy["waves"] = waves
    return strategy


def draw_releases(dice: Dice, profile: str) -> list[SimRelease]:
    """Release 1 is installed everywhere; 2 to 5 may be asked for, and the last one is good."""
    calm = profile == "calm"
    faults = [None if dice.chance(0.7 if calm else 0.5) else dice.pick(FAULTS) for _ in range(3)]
    return [make_release(n, fault) for n, fault in enumerate([None, *faults, None], start=1)]
