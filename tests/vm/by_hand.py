"""What an agent does to a machine, done by hand: for tests of the machines themselves."""

from pathlib import Path

from careen.disk.slots import arm_firmware, arm_kexec
from careen.disk.table import change_slots
from careen.disk.types import Attributes, SlotName
from testos.image import OsImage
from testos.machine import Machine

_LOAD = """
mkdir -p /run/passive && mount -o ro,noload /dev/vda4 /run/passive &&
kexec -s -l /run/passive/{kernel} --initrd=/run/passive/{initrd} --command-line="$(
  sed 's/ careen\\.[a-z]*=[^ ]*//g' /proc/cmdline
) careen.slot=B careen.usrhash={root} careen.boot=kexec" &&
umount /run/passive
"""


def arm(disk: Path, *, method: str) -> None:
    """Arm slot B on the disk of a machine that is off."""
    change = arm_kexec if method == "kexec" else arm_firmware
    change_slots(disk, lambda slots: change(slots, SlotName.B, booted=SlotName.A))


def kexec_into_b(machine: Machine, image: OsImage) -> None:
    """Boot slot B from a running slot A."""
    block = image.block
    assert block.kernel is not None
    assert block.initrd is not None
    command = _LOAD.format(kernel=block.kernel.path, initrd=block.initrd.path, root=block.verity_root)
    machine.shell.run(command, seconds=60)
    machine.shell.send("systemctl --no-block kexec")


def read_attributes(machine: Machine) -> tuple[Attributes, Attributes]:
    """Attributes of slots A and B, from the disk itself."""
    from careen.disk.table import read_slots

    slots = read_slots(machine.disk)
    return slots.a.attributes, slots.b.attributes
