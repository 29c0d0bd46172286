"""One machine: power, firmware, kernel and kubelet around its disk. The agent on it is in agent.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from careen.agent.record import Deadman
from careen.agent.step import BootDecision, Journal
from careen.disk.types import SlotName

from .agent import Agent
from .api import Item, merge
from .disk import Disk
from .schedule import BrokenError

if TYPE_CHECKING:
    from .world import World

NOT_READY_AFTER = 40.0
"""Seconds of a silent kubelet after which the control plane says NotReady."""
SILENT_AFTER = 150.0
"""Seconds without a renewal of its Lease after which an agent counts as silent."""
Method = Literal["Kexec", "Firmware"]
Reset = Literal["Panic", "Watchdog"]


class Machine:
    """A machine. `epoch` counts its boots and falls: what was under way in an older epoch is no more."""

    def __init__(self, world: World, name: str, zone: str, *, control_plane: bool) -> None:
        self.world, self.name, self.zone, self.control_plane = world, name, zone, control_plane
        world.hardware += 1
        self.machine_id = f"machine-{world.hardware}"
        first = world.releases[0].release
        self.disk = Disk.install(first.digest, first.version)
        self.journal: Journal | None = None
        self.kexec = world.dice.chance(0.5)
        bare = not world.setting.calm and world.dice.chance(0.08)
        deadman: Deadman = "Missing" if bare else "TrialTimer"
        self.decision = BootDecision("Kexec" if self.kexec else "Firmware", "Drawn", "", deadman)
        self.reset_prepared = False
        self.epoch = self.boots = 0
        self.up = self.retired = self.api_answered = False
        self.booted, self.boot_id, self.boot_at = SlotName.A, "", 0.0
        self.method: Method = "Firmware"
        self.last_reset: Reset | None = None
        self.trials: dict[str, int] = {}
        self.fault: str | None = None
        self.connected = True
        self.lost_at: float | None = world.schedule.now - SILENT_AFTER
        self.ready_at: dict[str, float] = {}
        self.agent = Agent(self)

    @property
    def silent(self) -> bool:
        """Whether the agent's Lease has not changed for too long."""
        return self.lost_at is not None and self.world.schedule.now - self.lost_at >= SILENT_AFTER

    def note(self, what: str) -> None:
        """A line in the trace."""
        self.world.schedule.note(self.name, what)

    def lose_contact(self) -> None:
        """The Lease is renewed no more."""
        if self.lost_at is None:
            self.lost_at = self.world.schedule.now
            self.world.schedule.after(SILENT_AFTER + 0.1, self.world.wake_operators)

    def make_contact(self) -> None:
        """The agent reached the API server: it renews its Lease again."""
        was_silent = self.silent
        self.lost_at, self.api_answered = None, True
        if was_silent:
            self.world.wake_operators()

    def go_down(self, duration: float, reset: Reset | None = None) -> None:
        """Power or kernel are gone; after `duration` seconds the firmware boots what its rule says."""
        self.note(f"goes down ({reset or 'no word'})")
        self._fall()
        self.world.schedule.after(duration, self._power_on, self.epoch, reset)

    def reboot(self, method: Method, slot: SlotName) -> None:
        """What the agent asked for: kexec into a slot, or a reset."""
        duration = self.world.dice.wait(4.0)
        self.note(f"reboots by {method} ({slot})")
        self._fall()
        if method == "Kexec":
            self.world.schedule.after(duration, self._boot, self.epoch, slot, method, None)
        else:
            self.world.schedule.after(duration, self._power_on, self.epoch, None)

    def _fall(self) -> None:
        self.epoch += 1
        self.up = False
        self.agent.kill()
        self.world.schedule.after(NOT_READY_AFTER, self._miss_kubelet, self.epoch)
        self.world.host_fell(self)

    def retire(self) -> None:
        """The machine is taken out of the rack."""
        self.retired = True
        self._fall()

    def _power_on(self, epoch: int, reset: Reset | None) -> None:
        if epoch != self.epoch or self.retired:
            return
        slot = self.disk.boot()
        if slot is None:
            raise BrokenError(f"invariant 3: nothing boots on {self.name}: {self.disk}")
        self._boot(epoch, slot, "Firmware", reset)

    def _boot(self, epoch: int, slot: SlotName, method: Method, reset: Reset | None) -> None:
        if epoch != self.epoch or self.retired:
            return
        self.start(slot, method, reset)
        schedule, dice = self.world.schedule, self.world.dice
        if self.fault == "panic":
            schedule.after(dice.uniform(0.5, 50.0), self._die_on_trial, self.epoch, "Panic")
        if self.fault in ("hang", "no-agent"):
            schedule.after(
                dice.uniform(30.0, 90.0), self._die_on_trial, self.epoch, "Watchdog" if self.fault == "hang" else None
            )
        else:
            schedule.after(dice.uniform(0.3, 6.0), self.start_agent, self.epoch)
        if self.fault == "no-api":
            schedule.after(dice.uniform(60.0, 400.0), self._find_api, self.epoch)
        if self.fault != "hang":
            schedule.after(dice.uniform(0.3, 8.0), self.report, self.epoch, self.fault != "never-ready")

    def start(self, slot: SlotName, method: Method = "Firmware", reset: Reset | None = None) -> None:
        """The kernel runs."""
        self.boots += 1
        self.booted, self.method, self.last_reset, self.up = slot, method, reset, True
        self.boot_id, self.boot_at = f"{self.machine_id}-boot-{self.boots}", self.world.schedule.now
        self.api_answered = False
        self.fault = self._find_fault()
        if self.reset_prepared:
            self.world.watch.requests.see_reset(self)
            self.reset_prepared = False
        self.world.watch.see_boot(self)

    def _find_fault(self) -> str | None:
        slot = self.disk[self.booted]
        if slot.attributes.successful or slot.content is None:
            return None
        known = self.world.find_release(slot.content)
        seen = self.trials.get(slot.content, 0)
        self.trials[slot.content] = seen + 1
        if known is None or known.fault is None:
            return None
        if known.fault == "second":
            return "no-agent" if seen == 0 else None
        return known.fault

    def _die_on_trial(self, epoch: int, reset: Reset | None) -> None:
        if epoch == self.epoch and not self.disk[self.booted].attributes.successful:
            self.go_down(self.world.dice.wait(4.0), reset)

    def _find_api(self, epoch: int) -> None:
        if epoch == self.epoch:
            self.fault = None

    def start_agent(self, epoch: int) -> None:
        """systemd starts the agent."""
        if epoch == self.epoch and self.up and not self.agent.alive:
            self.agent.start()

    @property
    def reaches_api(self) -> bool:
        """Whether its requests arrive."""
        return self.connected and not self.world.api.down and self.fault != "no-api"

    # The kubelet: it reports at boot, and makes its Node only then.

    def report(self, epoch: int, ready: bool = True) -> None:
        """The kubelet reports this boot; it registers the machine when there is no such Node."""
        if epoch != self.epoch or not self.up:
            return
        if self.world.api.down:
            self.world.schedule.after(5.0, self.report, epoch, ready)
            return
        status = self._core_status(ready)
        if ready:
            self.ready_at.setdefault(self.boot_id, self.world.schedule.now)
        if self.world.api.get("CoreNode", self.name) is None:
            self.register(status)
            return
        self.world.api.update("CoreNode", self.name, lambda doc: merge(doc, {"status": status}), by="kubelet")

    def register(self, status: dict[str, Any] | None = None) -> Item | None:
        """Make the core Node."""
        labels = {"zone": self.zone, "pool": "a"}
        if self.control_plane:
            labels["node-role.kubernetes.io/control-plane"] = ""
        made = self.world.api.create(
            "CoreNode", self.name, "kubelet", labels=labels, spec={}, status=status or self._core_status(ready=True)
        )
        self.ready_at.setdefault(self.boot_id, self.world.schedule.now)
        return made if isinstance(made, Item) else None

    def _core_status(self, ready: bool) -> dict[str, Any]:
        return {
            "nodeInfo": {"bootID": self.boot_id, "machineID": self.machine_id},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }

    def _miss_kubelet(self, epoch: int) -> None:
        if epoch == self.epoch and not self.up and self.world.machines.get(self.name) is self:
            self.set_ready(ready=False)

    def set_ready(self, *, ready: bool) -> None:
        """The control plane, or a kubelet with trouble, changes Ready alone."""
        status = {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
        self.world.api.update("CoreNode", self.name, lambda doc: merge(doc, {"status": status}), by="kubelet")
