"""What is the caller's fault, or the moment's: raised anywhere, turned into a response by one table."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Literal

from aiohttp import web

Code = Literal[
    "bad-request",
    "bad-host",
    "unauthenticated",
    "forbidden",
    "not-found",
    "method-not-allowed",
    "request-timeout",
    "body-too-large",
    "head-too-large",
    "unsupported-media-type",
    "invalid-event",
    "publish-refused",
    "bad-gateway",
    "unavailable",
    "limit",
    "draining",
]

STATUS: dict[Code, HTTPStatus] = {
    "bad-request": HTTPStatus.BAD_REQUEST,
    "bad-host": HTTPStatus.MISDIRECTED_REQUEST,
    "unauthenticated": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "not-found": HTTPStatus.NOT_FOUND,
    "method-not-allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "request-timeout": HTTPStatus.REQUEST_TIMEOUT,
    "body-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "head-too-large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "unsupported-media-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "invalid-event": HTTPStatus.UNPROCESSABLE_ENTITY,
    "publish-refused": HTTPStatus.CONFLICT,
    "bad-gateway": HTTPStatus.BAD_GATEWAY,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "limit": HTTPStatus.TOO_MANY_REQUESTS,
    "draining": HTTPStatus.SERVICE_UNAVAILABLE,
}

TEMPORARY: frozenset[Code] = frozenset({"unavailable", "limit", "draining"})
"""Refusals that pass by themselves: the same request may succeed in a moment."""


class Refused(Exception):  # noqa: N818 - named as it reads: the request is refused
    """A request that is not served.

    Args:
        code: which kind of refusal; it decides the HTTP status.
        detail: one sentence for a person.
        reason: what exactly, in the metric and in the answer, where the code says too little.
        retry_after_s: when to come back, for a temporary refusal.
        extra: more members of the answer's JSON, beside `error`.
        allow: methods there are, for one there isn't.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        reason: str = "",
        retry_after_s: float | None = None,
        extra: dict[str, Any] | None = None,
        allow: tuple[str, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.reason = reason or code
        self.retry_after_s = retry_after_s
        self.extra = extra or {}
        self.allow = allow

    @property
    def retry_after(self) -> str:
        """When to come back, as `Retry-After` says it: whole seconds, and not sooner than asked for."""
        return str(max(1, math.ceil(self.retry_after_s or 1)))

    def response(self) -> web.Response:
        """Give the answer outside A2A: `{"error": {"code", "message"}}` under the code's status."""
        headers = {"Cache-Control": "no-store"}
        if self.code in TEMPORARY:
            headers["Retry-After"] = self.retry_after
        if self.code == "unauthenticated":
            headers["WWW-Authenticate"] = 'Bearer realm="sidecast"'
        if self.allow:
            headers["Allow"] = ",".join(self.allow)
        error = {"code": self.code, "message": self.detail}
        if self.reason != self.code:
            error["reason"] = self.reason
        body = {"error": error, **self.extra}
        return web.json_response(body, status=STATUS[self.code], headers=headers)


def unknown() -> Refused:
    """Give the answer to who asks for a task there is not, or may not see."""
    return Refused("not-found", "there is no such task, or it is not yours")
