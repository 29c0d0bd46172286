"""Rules that a schema alone can't say, as the API server's CEL validations."""

from pydantic.config import JsonDict

RULES = "x-kubernetes-validations"
ALLOWED = "x-careen-allowed"
INT_OR_PERCENT = "x-careen-int-or-percent"


def rule(expression: str, message: str, *, field: str | None = None, message_expression: str | None = None) -> JsonDict:
    """One rule: a CEL expression over `self` (and `oldSelf`, which makes it a rule on changes only).

    `message` says what is allowed. `field`, a path such as `.group`, is the field that the error names instead of
    the object. `message_expression` is CEL for a message with values in it; `message` then is for when it fails.
    """
    made: JsonDict = {"rule": expression, "message": message}
    if field is not None:
        made["fieldPath"] = field
    if message_expression is not None:
        made["messageExpression"] = message_expression
    return made


def rules(*each: JsonDict) -> JsonDict:
    """The rules of one model, for its `json_schema_extra`."""
    return {RULES: list(each)}


def match_rule(pattern: str, allowed: str) -> JsonDict:
    """A rule in place of a bare pattern, whose refusal would show people a regular expression."""
    return rule(f"self.matches({quote(pattern)})", f"must be {allowed}")


def int_or_percent_rule() -> JsonDict:
    """An amount of machines: at least one, so that a rollout can't be stopped by a budget that nobody sees."""
    return rule(
        "type(self) == int ? self >= 1 && self <= 100000 : self.matches(r'^([1-9][0-9]?|100)%$')",
        'must be a whole number from 1 to 100000, or a percentage from "1%" to "100%"',
    )


def quote(text: str) -> str:
    """A raw CEL string literal; ValueError for text that needs escapes."""
    if "'" in text or "\n" in text:
        raise ValueError(f"{text!r} holds a quote or a line break: a raw CEL string can't")
    return f"r'{text}'"
