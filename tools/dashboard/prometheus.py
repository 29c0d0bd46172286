"""A Prometheus server on loopback, for as long as a `with` block lasts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from careen.sandbox.processes import Child, spawn, stop

from .files import find_program

START_SECONDS = 60.0
Sample = dict[str, Any]
Labels = dict[str, str]


def find_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Prometheus:
    """Scrapes ports of loopback, by job, and evaluates rules, each once a second."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[int]], rules: str | None = None) -> None:
        """folder: an empty one for configuration and data. rules: text of a rule file."""
        self._folder = folder
        self._port = find_port()
        self._child: Child | None = None
        config: dict[str, Any] = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
                for job, ports in jobs.items()
            ],
        }
        if rules is not None:
            (folder / "rules.yaml").write_text(rules)
            config["rule_files"] = [str(folder / "rules.yaml")]
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Self:
        command = [
            find_program("prometheus"),
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--log.level=warn",
        ]
        self._child = spawn("prometheus", command, self._folder / "prometheus.log")
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if time.monotonic() > deadline or self._child.ended:
                raise TimeoutError(f"prometheus did not start:\n{self._child.log_tail()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._child is not None:
            stop([self._child], 10.0)

    def query(self, expression: str) -> list[Sample]:
        """The result of an instant query: samples with `metric` and `value`."""
        return list(self._get("query", query=expression)["result"])

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Sample]:
        """The result of a range query: samples with `metric` and `values`."""
        return list(self._get("query_range", query=expression, start=start, end=end, step=step)["result"])

    def find_alerts(self) -> dict[str, list[Labels]]:
        """The labels of the alerts that fire now, by name."""
        found: dict[str, list[Labels]] = {}
        for alert in self._get("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def find_down(self) -> list[str]:
        """Why targets could not be scraped, those that could left out."""
        targets = self._get("targets")["activeTargets"]
        return [f"{each['scrapeUrl']}: {each['lastError']}" for each in targets if each["health"] != "up"]

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _get(self, what: str, **parameters: str | float) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urlencode(parameters)}"
        with urlopen(url, timeout=30) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data
