"""What people ask of one machine once: a reboot, or a reset."""

from typing import Annotated, Literal

from pydantic import Field

from .meta import Model
from .rules import ALLOWED, rule, rules

RequestAction = Literal["Reboot", "Reset"]
RequestOutcome = Literal["Done", "Failed", "Aborted"]
RequestID = Annotated[
    str,
    Field(
        pattern=r"^[0-9A-Za-z]([-0-9A-Za-z_.]*[0-9A-Za-z])?$",
        min_length=1,
        max_length=64,
        json_schema_extra={ALLOWED: "up to 64 letters, digits, -, _ and ., with a letter or digit at both ends"},
    ),
]


class Request(
    Model,
    json_schema_extra=rules(
        rule(
            "self.id != oldSelf.id || self.action == oldSelf.action",
            "action must stay as it is under one id; another request needs another id",
            field=".action",
        )
    ),
):
    """What people ask of this machine, once."""

    action: RequestAction
    """Reboot boots the running slot again. Reset empties the machine's writable file system first, but for its identity
    and its credentials. Neither touches the slots."""
    id: RequestID
    """Identity of the request: it is done once. Another id asks again."""
