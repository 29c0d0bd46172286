"""The contents of units, read from their Unit objects, and taken only if they are the ones that were ordered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from careen.kube.errors import ApiError, NotFound, ServerError, TooManyRequests, Unreachable
from careen.kube.resources import UNITS
from careen.kube.session import Session
from careen.units.file import UnitError, hash_text, parse_options, write_options

from .sight import Order

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Requests at a time."""


class NoAnswerError(Exception):
    """The API server can't be asked now; what could be read is kept."""


class Contents:
    """Reads contents, and keeps them until they are no longer wanted. request_seconds: deadline of one request."""

    def __init__(self, session: Session, request_seconds: float) -> None:
        self._session = session
        self._seconds = request_seconds
        self._texts: dict[str, str] = {}

    @property
    def texts(self) -> Mapping[str, str]:
        """The canonical texts at hand, by their hash."""
        return self._texts

    def keep(self, wanted: Iterable[Order]) -> None:
        """Let go of all other texts."""
        hashes = {each.hash for each in wanted}
        self._texts = {key: text for key, text in self._texts.items() if key in hashes}

    async def fetch(self, wanted: Iterable[Order]) -> dict[str, str]:
        """Read what is not at hand yet; why an order's content can't be had, by the unit's name.

        Raises NoAnswerError as soon as one request gets no proper answer: the next ones would not, either.
        """
        gate = asyncio.Semaphore(AT_ONCE)
        problems: dict[str, str] = {}

        async def read(order: Order) -> None:
            async with gate:
                # Instances of a template have one content: who comes second may find it there.
                if order.hash not in self._texts and (problem := await self._read(order)) is not None:
                    problems[order.name] = problem

        try:
            async with asyncio.TaskGroup() as group:
                for order in wanted:
                    group.create_task(read(order))
        except* NoAnswerError as errors:
            raise NoAnswerError(str(errors.exceptions[0])) from None
        return problems

    async def _read(self, order: Order) -> str | None:
        try:
            answer = await self._session.request("GET", UNITS.path(name=order.unit), timeout=self._seconds)
        except NotFound:
            return f"its content can't be read: there is no Unit {order.unit}"
        except (Unreachable, ServerError, TooManyRequests) as error:
            raise NoAnswerError(str(error)) from None
        except ApiError as error:
            return f"its content can't be read: {error}"
        return self._take(order, answer.body)

    def _take(self, order: Order, document: Mapping[str, Any]) -> str | None:
        content = (document.get("spec") or {}).get("content")
        if not isinstance(content, str):
            return f"the Unit {order.unit} has no content"
        try:
            text = write_options(parse_options(content))
        except UnitError as error:
            return f"the content of the Unit {order.unit} is no unit file: {error}"
        found = hash_text(text)
        if found != order.hash:
            return f"the Unit {order.unit} has another content ({found[:7]}) than was ordered ({order.hash[:7]})"
        self._texts[found] = text
        return None
