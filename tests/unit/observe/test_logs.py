"""Log lines."""

import json
import logging

from careen.observe.logs import JsonFormatter


def test_a_line_is_one_json_object_with_the_extra_fields() -> None:
    record = logging.makeLogRecord({"msg": "lock", "levelname": "INFO", "name": "careen", "granted": ("node-1",)})
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["level"], line["granted"]) == ("lock", "info", ["node-1"])


def test_a_line_leaves_out_what_kopf_hangs_on_it() -> None:
    record = logging.makeLogRecord({"msg": "x", "settings": object(), "k8s_ref": {"uid": "u"}})
    assert set(json.loads(JsonFormatter().format(record))) == {"time", "level", "logger", "message"}


def test_a_newline_in_a_message_stays_in_the_line() -> None:
    record = logging.makeLogRecord({"msg": "two\nlines"})
    assert "\n" not in JsonFormatter().format(record)
