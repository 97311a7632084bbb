"""The API server's question and its answer: `AdmissionReview` of `admission.k8s.io/v1`.

Must not know what is decided, nor how question and answer travel.
"""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

from sidecast_broker.core.injection import Injection
from sidecast_broker.core.strict_json import read_strictly

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
WARNING_MAX = 256
"""Characters; the API server's own bound is on all warnings of an answer together."""

_POD = {"group": "", "version": "v1", "kind": "Pod"}
_OPERATIONS = ("CREATE", "UPDATE", "DELETE", "CONNECT")
_UID_MAX = 256


class MalformedReview(ValueError):  # noqa: N818 - named as the answer reads: the review is malformed
    """Not a question the API server asks; the message holds nothing of it."""


class Review(NamedTuple):
    """One question.

    Attributes:
        uid: names the question in its answer.
        namespace: where the object is made.
        pod: the pod that is made; None: it is about anything else.
    """

    uid: str
    namespace: str
    pod: dict[str, Any] | None


def read_review(body: bytes) -> Review:
    """Read a question.

    Raises:
        MalformedReview: it is none.
    """
    try:
        review = read_strictly(body)
    except (ValueError, RecursionError) as error:
        raise MalformedReview("the body is not JSON") from error
    if not isinstance(review, dict) or review.get("kind") != KIND or review.get("apiVersion") != API_VERSION:
        raise MalformedReview(f"the body is not an {KIND} of {API_VERSION}")
    request = review.get("request")
    if not isinstance(request, dict):
        raise MalformedReview("request must be an object")
    uid, operation = request.get("uid"), request.get("operation")
    if not isinstance(uid, str) or not 0 < len(uid) <= _UID_MAX or not uid.isprintable():
        raise MalformedReview("request.uid must be text that names the request")
    if operation not in _OPERATIONS:
        raise MalformedReview(f"request.operation must be one of {', '.join(_OPERATIONS)}")
    if request.get("kind") != _POD or operation != "CREATE" or request.get("subResource"):
        return Review(uid, "", None)
    namespace, pod = request.get("namespace"), request.get("object")
    if not isinstance(namespace, str) or not namespace:
        raise MalformedReview("request.namespace must name the pod's namespace")
    if not isinstance(pod, dict):
        raise MalformedReview("request.object must be the pod")
    return Review(uid, namespace, pod)


def format_answer(uid: str, injection: Injection) -> bytes:
    """Write the answer to a question."""
    response: dict[str, Any] = {"uid": uid, "allowed": not injection.denial}
    if injection.denial:
        response["status"] = {"code": 400, "reason": "BadRequest", "message": f"sidecast: {injection.denial}"}
    if injection.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(injection.patch).encode()).decode()
    if injection.warnings:
        response["warnings"] = [f"sidecast: {warning}"[:WARNING_MAX] for warning in injection.warnings]
    return json.dumps({"apiVersion": API_VERSION, "kind": KIND, "response": response}).encode()
