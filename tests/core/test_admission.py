from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from injected_pods import NAMESPACE, pod, review

from sidecast_broker.core.admission import MalformedReview, format_answer, read_review
from sidecast_broker.core.injection import Injection

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"


def read(document: Any) -> Any:
    return read_review(json.dumps(document).encode())


def test_a_question_about_a_pod() -> None:
    made = pod("plain")
    assert read(review(made)) == (UID, NAMESPACE, made)


@pytest.mark.parametrize(
    "changed",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
    ],
)
def test_a_question_about_anything_else(changed: dict[str, Any]) -> None:
    assert read(review(pod("plain"), **changed)) == (UID, "", None)


WHOLE = review(pod("plain"))


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ([], "AdmissionReview"),
        ("x", "AdmissionReview"),
        (None, "AdmissionReview"),
        ({}, "AdmissionReview"),
        ({**WHOLE, "apiVersion": "admission.k8s.io/v1beta1"}, "admission.k8s.io/v1"),
        ({**WHOLE, "kind": "Pod"}, "AdmissionReview"),
        ({**WHOLE, "request": None}, "request"),
        ({**WHOLE, "request": []}, "request"),
        (review({}, uid=""), "request.uid"),
        (review({}, uid=None), "request.uid"),
        (review({}, uid=7), "request.uid"),
        (review({}, uid="x" * 257), "request.uid"),
        (review({}, uid="a\nb"), "request.uid"),
        (review({}, operation=None), "request.operation"),
        (review({}, operation="create"), "request.operation"),
        (review({}, operation=["CREATE"]), "request.operation"),
        (review(None), "request.object"),
        (review([]), "request.object"),
        ({**WHOLE, "request": {**WHOLE["request"], "namespace": ""}}, "request.namespace"),
        ({**WHOLE, "request": {**WHOLE["request"], "namespace": 1}}, "request.namespace"),
    ],
)
def test_what_is_malformed_is_named(document: Any, word: str) -> None:
    with pytest.raises(MalformedReview, match=word):
        read(document)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"kind":"AdmissionReview","kind":"Pod"}',
        b'{"kind":NaN}',
        b'{"request":' + b"9" * 10_000 + b"}",
        b"\0" * 1000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(MalformedReview, match="not JSON"):
        read_review(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(WHOLE["request"])), JSON)
def test_no_member_breaks_it(name: str, value: Any) -> None:
    document = {**WHOLE, "request": {**WHOLE["request"], name: value}}
    try:
        found = read(document)
    except MalformedReview:
        return
    assert found.uid == document["request"]["uid"]


def test_answers() -> None:
    def answer(injection: Injection) -> Any:
        whole = json.loads(format_answer(UID, injection))
        assert (whole["apiVersion"], whole["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        return whole["response"]

    assert answer(Injection("ignored")) == {"uid": UID, "allowed": True}
    assert answer(Injection("denied", denial="x: y")) == {
        "uid": UID,
        "allowed": False,
        "status": {"code": 400, "reason": "BadRequest", "message": "sidecast: x: y"},
    }
    operation = {"op": "add", "path": "/x", "value": "ü"}
    made = answer(Injection("injected", (operation,), ("w" * 1000,)))
    assert made["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(made["patch"])) == [operation]
    assert [len(warning) for warning in made["warnings"]] == [256]
