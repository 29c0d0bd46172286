"""`careen unit verify`: what people and scripts get, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from careen.cli.main import run

GOOD = """\
# our web server
[Unit]
Description=Web %i

[Service]
ExecStart=/bin/web

[X-Fleet]
MachineOf=db@%i.service
Conflicts=%p@*.service
MachineMetadata="region=eu" "region=us"
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("careen", ["unit", "verify", str(write(tmp_path, "web@1.service", GOOD))]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (
        "name             web@1.service\n"
        "hash             6fd3b4a0ebd15b1a83043ca96b17c25285d05f98\n"
        "description      Web %i\n"
        "machineOf        db@1.service\n"
        "machineMetadata  region=eu or us\n"
        "conflicts        web@*.service\n"
    )


def test_a_good_file_as_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = write(tmp_path, "sleep.service", "[Service]\nExecStart=/bin/sleep 1\n[X-Fleet]\nGlobal=yes\n")
    assert run("careen", ["unit", "verify", "--json", str(sample)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["name", "hash", "requirements", "errors"]
    assert document["name"] == "sleep.service"
    assert document["requirements"] == {"global": True}
    assert document["errors"] == []


def test_errors_are_told_one_a_line_and_the_exit_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = "[Service]\nExecStart=/bin/web\n[X-Fleet]\nMachineID=m\nConflicts=a*\nMachineMetadata=x\n"
    path = write(tmp_path, "web.service", content)
    assert run("careen", ["unit", "verify", str(path)]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"{path}: MachineID cannot be used with Conflicts",
        f'{path}: MachineMetadata "x" must be key=value; several in one line are quoted each',
    ]
    assert "hash " in printed.out

    assert run("careen", ["unit", "verify", "--json", str(path)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["errors"][0] == "MachineID cannot be used with Conflicts"
    assert printed.err == ""


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("web", "[A]\nb=c", 'unit name must contain "."'),
        ("web.txt", "[A]\nb=c", 'invalid unit type: "txt"'),
        ("web.service", b"[A]\nb=\xff", "content must be UTF-8: byte 7 is not"),
        ("web.service", b"[A]\n" + b"b=\xc3\xa9\n" * 20_000, "content must have at most 65536 bytes"),
        ("web.service", "", "content must have options"),
        ("web.service", "[A]\nb", "unexpected newline encountered while parsing option name"),
    ],
)
def test_a_file_that_is_no_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, error: str
) -> None:
    path = write(tmp_path, name, content)
    assert run("careen", ["unit", "verify", "--json", str(path)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == name
    assert len(document["errors"]) == 1
    assert document["errors"][0].startswith(error)


def test_what_is_only_doubtful_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "web.service", "[Service]\nExecStart=/bin/web\n[X-Fleet]\nMashineID=m\n")
    assert run("careen", ["unit", "verify", "--json", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.err == f'{path}: warning: unrecognized requirement in [X-Fleet] section: "MashineID"\n'
    assert json.loads(printed.out)["errors"] == []


def test_no_such_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("careen", ["unit", "verify", str(tmp_path / "none.service")]) == 2
    assert run("careen", ["unit", "verify", str(tmp_path)]) == 2
    assert capsys.readouterr().out == ""
