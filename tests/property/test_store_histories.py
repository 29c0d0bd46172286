"""The store ends with the truth, whatever the order in which it learns of changes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from careen.kube.resources import NODES
from careen.kube.store import Store


class Direct:
    """A session whose lists are written by hand."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.version = 0

    async def request(self, method, path, *, query=None, **_):
        body = {"items": list(self.items), "metadata": {"resourceVersion": str(self.version)}}
        return type("Answer", (), {"body": body})


# One step of a history: what happens to which of three names, and which of the ways of learning it follow.
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["put", "remove", "recreate"]), st.booleans(), st.booleans()),
    max_size=30,
)


@given(steps=STEPS, relists=st.sets(st.integers(0, 29)))
async def test_any_mix_of_events_own_writes_and_lists_ends_with_the_truth(steps, relists):
    direct = Direct()
    store = Store(direct, NODES, decode=lambda obj: obj.get("color"))  # type: ignore[arg-type]
    truth: dict[str, dict[str, Any]] = {}
    lag: list[tuple[str, dict[str, Any]]] = []
    start = 0
    for number, (index, action, own, deliver) in enumerate(steps):
        name = f"n{index}"
        removed = truth.pop(name, None) if action in ("remove", "recreate") else None
        if removed:
            direct.version += 1
            meta = {**removed["metadata"], "resourceVersion": str(direct.version)}
            lag.append(("DELETED", {**removed, "metadata": meta}))
            if own:
                store.forget("", name, meta["uid"])
        if action != "remove":
            direct.version += 1
            uid = truth[name]["metadata"]["uid"] if name in truth else f"u{direct.version}"
            meta = {"name": name, "uid": uid, "resourceVersion": str(direct.version)}
            lag.append(("MODIFIED" if name in truth else "ADDED", {"metadata": meta, "color": str(direct.version)}))
            truth[name] = lag[-1][1]
            if own:
                store.apply(truth[name])
        if number in relists:
            direct.items = list(truth.values())
            await store.relist(1)
            assert dict(store.objects) == {("", n): o["color"] for n, o in truth.items()}
        if deliver:
            for kind, obj in lag:
                store._take_event(kind, obj, start)
            lag.clear()
    for kind, obj in lag:
        store._take_event(kind, obj, start)
    assert dict(store.objects) == {("", n): o["color"] for n, o in truth.items()}
