"""`careen unit submit`, `load`, `start`, `stop`, `unload`, `restart`, `destroy` and `cat` on a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from unit_api import NODES, UNITS, SmallOperator, UnitApi, make_node

Careen = Callable[..., tuple[int, str, str]]
WEB = "# ours\n[Service]\nExecStart=/bin/web\n"
NEWER = "[Service]\nExecStart=/bin/web --newer\n"


def write(folder: Path, name: str, content: str = WEB) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def spec(api: UnitApi, name: str) -> dict[str, str]:
    return dict(api.unit(name)["spec"])


def test_submit_makes_an_inactive_unit_with_its_comments(api: UnitApi, careen: Careen, folder: Path) -> None:
    assert careen("submit", write(folder, "web.service")) == (0, "Unit web.service inactive\n", "")
    assert spec(api, "web.service") == {"content": WEB, "desiredState": "inactive"}


def test_start_waits_until_the_unit_runs_and_says_where(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api)
    code, out, _ = careen("start", write(folder, "web@1.service"))
    assert (code, out) == (0, "Unit web@1.service launched on m1\n")
    unit = api.unit("web@1.service")
    assert unit["spec"]["name"] == "web@1.service"
    assert unit["spec"]["desiredState"] == "launched"
    assert [method for method, *_ in api.writes] == ["POST"]


def test_load_does_not_start(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api)
    assert careen("load", write(folder, "web.service"))[:2] == (0, "Unit web.service loaded on m1\n")
    assert spec(api, "web.service")["desiredState"] == "loaded"


def test_start_tells_why_it_waits_and_ends_at_its_deadline(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api).refuse = "3 machines: Conflicts with db.service"
    code, out, err = careen("start", "--timeout", "1.5", write(folder, "web.service"))
    assert (code, out) == (1, "")
    told, ended = err.splitlines()
    assert told == "Unit web.service waits: NoPlace: 3 machines: Conflicts with db.service"
    assert ended.startswith("Unit web.service is not launched after 1.5 s: NoPlace: 3 machines")


def test_without_blocking_nothing_is_waited_for(api: UnitApi, careen: Careen, folder: Path) -> None:
    assert careen("start", "--no-block", write(folder, "web.service")) == (0, "Triggered unit web.service start\n", "")
    assert careen("stop", "--no-block", "web.service") == (0, "Triggered unit web.service stop\n", "")


def test_attempts_count_two_seconds_each(api: UnitApi, careen: Careen, folder: Path) -> None:
    code, _, err = careen("start", "--block-attempts", "1", write(folder, "web.service"))
    assert code == 1
    assert "is not launched after 2 s: the operator has not seen it yet" in err


def test_a_unit_that_fails_is_no_success(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api).active = "failed", "failed"
    code, out, err = careen("start", write(folder, "web.service"))
    assert (code, out) == (1, "")
    assert err.startswith("Unit web.service failed on m1 (failed)")


def test_a_unit_that_has_done_its_work_is(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api).active = "inactive", "dead"
    assert careen("start", write(folder, "job.service"))[:2] == (
        0,
        "Unit job.service launched on m1 (inactive, dead)\n",
    )


def test_a_folder_is_started_as_a_whole_and_its_templates_are_kept(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api)
    for name in ("web@.service", "db.service", "web@1.service", "README.md"):
        write(folder, name)
    code, out, _ = careen("start", folder)
    assert code == 0
    assert out.splitlines() == [
        "Unit web@.service inactive",
        "Unit db.service launched on m1",
        "Unit web@1.service launched on m1",
    ]
    assert spec(api, "web@.service")["desiredState"] == "inactive"


def test_nothing_is_written_when_one_file_is_bad(api: UnitApi, careen: Careen, folder: Path) -> None:
    write(folder, "a.service")
    bad = write(folder, "b.service", "[Service]\nExecStart=/bin/b\n[X-Fleet]\nMachineID=m\nConflicts=a*\n")
    code, _, err = careen("start", folder)
    assert code == 1
    assert f"{bad}: MachineID cannot be used with Conflicts; nothing was changed" in err
    assert api.writes == []


def test_an_instance_is_made_of_the_clusters_template(api: UnitApi, careen: Careen, folder: Path) -> None:
    careen("submit", write(folder, "web@.service", NEWER))
    assert careen("start", "--no-block", "web@7")[0] == 0
    assert spec(api, "web@7.service")["content"] == NEWER


def test_an_instance_is_made_of_a_template_beside_it(api: UnitApi, careen: Careen, folder: Path) -> None:
    write(folder, "web@.service", NEWER)
    assert careen("start", "--no-block", folder / "web@7.service")[0] == 0
    assert spec(api, "web@7.service")["content"] == NEWER
    assert len(api.collections[UNITS]) == 1


def test_a_template_is_not_started(api: UnitApi, careen: Careen, folder: Path) -> None:
    code, _, err = careen("start", write(folder, "web@.service"))
    assert code == 1
    assert 'cannot activate template "web@.service"' in err
    assert api.writes == []


def test_an_unknown_unit_is_named(careen: Careen) -> None:
    code, _, err = careen("start", "nobody")
    assert code == 1
    assert "unable to find Unit(nobody.service) in the cluster or on the disk" in err


def test_a_file_that_differs_is_used_only_to_replace(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api)
    path = write(folder, "web.service")
    careen("start", path)
    write(folder, "web.service", NEWER)
    code, _, err = careen("start", path)
    assert code == 0
    assert err.startswith(f"WARNING: Unit web.service in the cluster differs from {path}")
    assert spec(api, "web.service")["content"] == WEB
    assert careen("submit", "--replace", path) == (0, "Unit web.service launched\n", "")
    assert spec(api, "web.service") == {"content": NEWER, "desiredState": "launched"}


def test_comments_are_no_difference(api: UnitApi, careen: Careen, folder: Path) -> None:
    careen("submit", write(folder, "web.service"))
    assert careen("submit", write(folder, "web.service", "[Service]\nExecStart=/bin/web\n"))[2] == ""


def test_a_new_template_says_which_instances_keep_the_old_one(api: UnitApi, careen: Careen, folder: Path) -> None:
    careen("submit", write(folder, "web@.service"))
    careen("submit", "web@1", "web@2")
    code, _, err = careen("submit", "--replace", write(folder, "web@.service", NEWER))
    assert code == 0
    assert err.startswith("web@1.service, web@2.service keep the content that they have")


def test_patterns_mean_the_clusters_units_that_can_run(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api)
    careen("submit", write(folder, "web@.service"), write(folder, "db.service"))
    careen("submit", "web@1", "web@2")
    code, out, _ = careen("start", "web@*")
    assert code == 0
    assert out.split("\n")[:2] == ["Unit web@1.service launched on m1", "Unit web@2.service launched on m1"]
    assert "matches nothing*" in careen("start", "nothing*")[2]


def test_stop_unload_and_destroy(api: UnitApi, careen: Careen, folder: Path) -> None:
    operator = SmallOperator(api)
    careen("start", write(folder, "a.service"), write(folder, "b.service"))
    assert careen("stop", "a", "b.service") == (0, "", "Successfully stopped units [a.service b.service].\n")
    assert spec(api, "a.service")["desiredState"] == "loaded"
    assert careen("unload", "a")[::2] == (0, "Successfully unloaded units [a.service].\n")
    assert spec(api, "a.service")["desiredState"] == "inactive"
    code, _, err = careen("stop", "a", "b")
    assert code == 1
    assert "Unable to stop unit a.service in state inactive" in err
    assert careen("destroy", "a", "b") == (0, "Destroyed a.service\nDestroyed b.service\n", "")
    assert api.collections[UNITS] == {}
    assert operator.api.collections["/apis/careen.dev/v1alpha1/nodes"]["m1"]["status"]["units"] == []


def test_destroy_waits_until_no_machine_has_the_unit(api: UnitApi, careen: Careen, folder: Path) -> None:
    operator = SmallOperator(api)
    careen("start", write(folder, "a.service"))
    operator.stuck = True
    code, out, err = careen("destroy", "--timeout", "0.5", "a")
    assert (code, out) == (1, "")
    assert err == "Destroyed a.service, but after 0.5 s it is still on m1\n"
    timer = threading.Timer(0.5, operator.report, ("a.service", None))
    api.put(UNITS, {"metadata": {"name": "a.service"}, "spec": {"content": WEB}})
    timer.start()
    assert careen("destroy", "a")[:2] == (0, "Destroyed a.service\n")
    timer.join()


def test_a_bare_word_means_a_unit_though_there_is_a_folder_of_that_name(
    api: UnitApi, careen: Careen, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallOperator(api)
    (folder / "web").mkdir()
    careen("start", write(folder, "web.service"), write(folder / "web", "other.service"))
    monkeypatch.chdir(folder)
    assert careen("stop", "web")[2] == "Successfully stopped units [web.service].\n"
    assert spec(api, "other.service")["desiredState"] == "launched"
    assert careen("stop", "web/")[2] == "Successfully stopped units [other.service].\n"


def test_destroy_waits_for_a_machine_that_is_about_to_start_the_unit(api: UnitApi, careen: Careen) -> None:
    api.put(UNITS, {"metadata": {"name": "a.service"}, "spec": {"content": WEB, "desiredState": "launched"}})
    node = make_node("m1")
    order = {"name": "a.service", "unit": "a.service", "hash": "a" * 40, "desiredState": "launched"}
    api.put(NODES, {**node, "spec": {"units": [order]}})
    code, _, err = careen("destroy", "--timeout", "0.5", "a")
    assert (code, err) == (1, "Destroyed a.service, but after 0.5 s it is still on m1\n")


@pytest.mark.parametrize(("verb", "code"), [("destroy", 0), ("stop", 1), ("unload", 1), ("restart", 1), ("cat", 1)])
def test_units_that_are_not_there(careen: Careen, verb: str, code: int) -> None:
    ended, out, err = careen(verb, "nobody")
    assert (ended, out) == (code, "")
    assert "nobody.service" in err


def test_restart_stops_first(api: UnitApi, careen: Careen, folder: Path) -> None:
    SmallOperator(api)
    careen("start", write(folder, "a.service"))
    api.writes.clear()
    assert careen("restart", "a") == (0, "Unit a.service launched on m1\n", "")
    assert [body["spec"] for _, _, body in api.writes] == [{"desiredState": "loaded"}, {"desiredState": "launched"}]


def test_a_restart_that_can_not_stop_leaves_the_unit_wanted(api: UnitApi, careen: Careen, folder: Path) -> None:
    operator = SmallOperator(api)
    careen("start", write(folder, "a.service"))
    operator.stuck = True
    code, out, err = careen("restart", "--timeout", "0.5", "a")
    assert (code, out) == (1, "")
    assert "is not loaded after 0.5 s" in err
    assert spec(api, "a.service")["desiredState"] == "launched"


def test_a_unit_that_is_destroyed_meanwhile_ends_the_wait(api: UnitApi, careen: Careen, folder: Path) -> None:
    path = write(folder, "a.service")

    def vanish(unit: dict[str, object]) -> None:
        api.collections[UNITS].clear()
        api._tell(UNITS, "DELETED", {**unit, "metadata": {**unit["metadata"], "resourceVersion": "900"}})  # type: ignore[dict-item]

    api.after_write = vanish
    code, _, err = careen("start", path)
    assert (code, err) == (1, "Unit a.service was destroyed meanwhile\n")


def test_cat_prints_the_canonical_text_and_nothing_else(api: UnitApi, careen: Careen, folder: Path) -> None:
    careen("submit", write(folder, "a.service"), write(folder, "b.service", NEWER))
    assert careen("cat", "a") == (0, "[Service]\nExecStart=/bin/web\n", "")
    assert careen("cat", "a", "b")[1] == (
        "# a.service\n[Service]\nExecStart=/bin/web\n\n# b.service\n[Service]\nExecStart=/bin/web --newer\n"
    )


def test_of_two_units_with_one_name_the_older_is_meant(api: UnitApi, careen: Careen) -> None:
    for name, created, content in (("x", "2026-01-02T00:00:00Z", NEWER), ("a.service", "2026-01-01T00:00:00Z", WEB)):
        meta = {"name": name, "creationTimestamp": created}
        api.put(UNITS, {"metadata": meta, "spec": {"name": "a.service", "content": content}})
    assert "--newer" not in careen("cat", "a")[1]


@pytest.mark.parametrize("words", [["start"], ["start", ""], ["stop", "--timeout", "0"], ["start", "--sign", "a"]])
def test_wrong_usage_is_2(careen: Careen, words: list[str]) -> None:
    assert careen(*words)[0] == 2


def test_a_folder_without_unit_files(careen: Careen, folder: Path) -> None:
    code, _, err = careen("start", folder)
    assert code == 1
    assert "holds no unit files" in err
