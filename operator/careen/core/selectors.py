"""Label selectors over a core Node's labels, and over the careen Node's for keys that the core Node lacks."""

from collections.abc import Mapping, Sequence

from .snapshot import Requirement


def matches(requirements: Sequence[Requirement], labels: Mapping[str, str], fallback: Mapping[str, str]) -> bool:
    """Whether all requirements hold; a key absent from `labels` is looked up in `fallback`."""
    return all(_holds(requirement, labels, fallback) for requirement in requirements)


def _holds(requirement: Requirement, labels: Mapping[str, str], fallback: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key, fallback.get(requirement.key))
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case _:
            return value is None
