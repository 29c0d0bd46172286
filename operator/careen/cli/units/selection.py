"""From what people name, and what the cluster and the disk have, to what is to be written for each unit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from careen.cli.units.files import Pick
from careen.cli.units.progress import Goal
from careen.cli.units.views import UnitView
from careen.units.file import UnitError, unit_hash
from careen.units.globs import match_glob
from careen.units.names import check_activation, name_object, split_name
from careen.units.reading import check_unit


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for one unit."""

    name: str
    object: str
    desired: Goal
    known: UnitView | None = None
    """The unit as it is; None: it is to be made."""
    content: str | None = None
    """The content that is to be written; None: the one that is there stays."""

    @property
    def changes(self) -> dict[str, str]:
        """What is to be written into the spec; nothing where all is as it should be."""
        found = {} if self.content is None else {"content": self.content}
        if self.known is None or self.known.desired != self.desired:
            found["desiredState"] = self.desired
        return found


@dataclass(slots=True)
class Choice:
    """The steps, and what people are to be told."""

    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Why nothing is to be done at all."""


def choose_steps(
    picks: Iterable[Pick], known: Mapping[str, UnitView], goal: Goal | None, *, replace: bool = False
) -> Choice:
    """What `submit` (no goal: units that are there stay as they are), `load` and `start` have to do."""
    choice = Choice()
    for pick in picks:
        if pick.is_pattern:
            names = _match(pick.name, known, choice)
            each = [Pick(name, name) for name in names if goal is None or not known[name].is_template]
        else:
            each = [pick]
        for one in each:
            _choose(one, known, goal, replace, choice)
    return choice


def choose_known(picks: Iterable[Pick], known: Mapping[str, UnitView]) -> tuple[list[UnitView], list[str]]:
    """Units of the cluster that are meant, each once, and names and patterns that mean none."""
    found: dict[str, UnitView] = {}
    missing = []
    for pick in picks:
        names = [name for name in known if match_glob(pick.name, name)] if pick.is_pattern else [pick.name]
        if not names or names[0] not in known:
            missing.append(pick.name)
            continue
        found |= {name: known[name] for name in names}
    return list(found.values()), missing


def _match(pattern: str, known: Mapping[str, UnitView], choice: Choice) -> list[str]:
    names = [name for name in known if match_glob(pattern, name)]
    if not names:
        choice.errors.append(f"no unit of the cluster matches {pattern}")
    return names


def _choose(pick: Pick, known: Mapping[str, UnitView], goal: Goal | None, replace: bool, choice: Choice) -> None:
    unit = known.get(pick.name)
    desired = _pick_desired(pick, unit, goal)
    text, origin = _pick_text(pick, known, replace=replace)
    if unit is None and text is None:
        choice.errors.append(f"unable to find Unit({pick.name}) in the cluster or on the disk")
        return
    if unit is not None and text is not None and _is_same(text, unit):
        text = None
    if unit is not None and text is not None and not replace:
        choice.warnings.append(
            f"WARNING: Unit {pick.name} in the cluster differs from {origin}, which is not used without --replace"
        )
        text = None
    fresh = unit is None or text is not None
    faults = list(_find_faults(pick.name, text, unit, desired, choice.warnings if fresh else []))
    if faults:
        choice.errors += [f"{origin or pick.name}: {fault}" for fault in faults]
        return
    if unit is not None and text is not None and unit.is_template:
        choice.warnings += _warn_of_instances(unit, known)
    choice.steps.append(Step(pick.name, unit.object if unit else name_object(pick.name), desired, unit, text))


def _pick_desired(pick: Pick, unit: UnitView | None, goal: Goal | None) -> Goal:
    if goal is None:
        return unit.desired if unit is not None else "inactive"  # type: ignore[return-value]
    # All that is in a folder is wanted in the cluster; what can't run is there for its instances.
    return "inactive" if pick.from_folder and split_name(pick.name).is_template else goal


def _pick_text(pick: Pick, known: Mapping[str, UnitView], *, replace: bool) -> tuple[str | None, str]:
    """The content that the unit could have, and where it is from: its file, the cluster's template, a template's file.

    Asked to replace, what lies on the disk comes first: it is what people have just changed.
    """
    if pick.file is not None:
        return pick.file.text, str(pick.file.path)
    local = (pick.template.text, str(pick.template.path)) if pick.template is not None else None
    parts = split_name(pick.name)
    stored = known.get(parts.template) if parts.is_instance and parts.template is not None else None
    if stored is not None and stored.content and not (replace and local):
        return stored.content, f"its template {stored.name}"
    return local or (None, "")


def _is_same(text: str, unit: UnitView) -> bool:
    """Comments are no difference: fleet threw them away."""
    try:
        return unit_hash(text) == unit.hash
    except UnitError:
        return False


def _find_faults(
    name: str, text: str | None, unit: UnitView | None, desired: str, warnings: list[str]
) -> Iterator[str]:
    """Why the unit can't be so; what is only doubtful is added to the warnings."""
    if text is None:
        if (fault := check_activation(split_name(name), desired)) is not None:
            yield fault
        return
    verdict = check_unit(name, text, unit.placement if unit is not None else None, desired)
    warnings += [f"{name}: warning: {each}" for each in verdict.warnings]
    yield from verdict.errors


def _warn_of_instances(template: UnitView, known: Mapping[str, UnitView]) -> Iterator[str]:
    names = [name for name in known if split_name(name).is_instance and split_name(name).template == template.name]
    if names:
        yield (
            f"{', '.join(names)} keep the content that they have; `careen unit start --replace` "
            f"gives it to each that is named"
        )
