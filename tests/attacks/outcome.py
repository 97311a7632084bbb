"""What must hold of every answer to a fuzzed input, and what came of all of them.

Must not know how inputs are sent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from access_rig import ACME
from attacks.asks import KINDS
from attacks.breaking import PARTS
from attacks.inputs import SUFFIX, Input
from attacks.keyring import OPEN_ALICES, TOKENS
from attacks.knocking import Answer

KEPT_BYTES_MAX = 1_500
SECRET = "for the eyes of alice only"
CLOSED_SHARE_MAX = 0.02
"""Of inputs that get no answer but the end: bytes that hold no request, as two line ends do."""


def check(given: Input, answer: Answer) -> None:
    """Check one answer to an input.

    Raises:
        AssertionError: it says that something went wrong at the broker, or what it must not say.
    """
    # One that is opened, confirmed and deleted at once by many may be told to come again.
    again = answer.status == 503 and b'"named subscriptions: ' in answer.body
    assert answer.status < 500 or again, "a status of the broker's own fault"
    assert answer.status != 101, "nothing is upgraded here"
    allowed = any(text.encode() in given.raw for text in OPEN_ALICES)
    assert allowed or SECRET.encode() not in answer.body, "shows a task to who may not see it"
    if answer.headers.get("content-type", "").startswith("application/json") and answer.body:
        told = json.loads(answer.body)
        # Operators here are bound to a tenant: of who watches, they learn of its streams only.
        watching = told.get("streams") if isinstance(told, dict) else None  # or how many there are
        tenants = {each["tenant"] for each in watching} if isinstance(watching, list) else set()
        operates = TOKENS["operator"].encode() in given.raw
        assert tenants <= ({ACME} if operates else set()), "tells who watches"
    assert answer.headers.get("x-content-type-options") == "nosniff", "not dressed as all answers are"


@dataclass
class Outcome:
    """What came of all inputs.

    Attributes:
        sent: how many.
        parts: how often what was broken.
        statuses: how often what was answered; 0: only the end of the connection.
        kinds: what was answered to inputs of which kind.
        failures: inputs that something is wrong with, and what.
        firsts: the first input with an answer like none before, by that answer.
    """

    sent: int = 0
    parts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: dict[str, Counter[int]] = field(default_factory=dict)
    failures: list[tuple[Input, str]] = field(default_factory=list)
    firsts: dict[str, Input] = field(default_factory=dict)

    def take(self, given: Input, answers: list[Answer]) -> None:
        """Count an input, and check what came of it."""
        self.sent += 1
        self.parts.update(given.parts)
        statuses = [answer.status for answer in answers] or [0]
        self.statuses.update(statuses)
        self.kinds.setdefault(given.parts[0], Counter()).update(statuses)
        for answer in answers:
            self.firsts.setdefault(_likeness(given, answer), given)
            try:
                check(given, answer)
            except (AssertionError, ValueError) as error:
                self.fail(given, f"{error}: {answer}")

    def fail(self, given: Input, why: str) -> None:
        """Keep an input that found something."""
        if len(self.failures) < 20:
            self.failures.append((given, why))

    def share(self, *statuses: int) -> float:
        """Give which share of the answers had one of these statuses."""
        return sum(self.statuses[each] for each in statuses) / self.statuses.total()

    def keep(self, folder: Path) -> list[str]:
        """Write each input that found something into a file; say what to do with it."""
        told = []
        for number, (given, why) in enumerate(self.failures):
            path = folder / f"{'internal' if given.internal else 'public'}-found-{number}{SUFFIX}"
            path.write_bytes(given.raw)
            told.append(f"{given.name} ({', '.join(given.parts)}): {why[:600]}; to replay it, keep {path}")
        return told

    def keep_firsts(self, folder: Path) -> None:
        """Write into files what was first answered like nothing before it, unless it is in a file already."""
        for likeness, given in self.firsts.items():
            if given.parts != ("kept",) and len(given.raw) <= KEPT_BYTES_MAX:
                listener, status = ("internal" if given.internal else "public"), likeness.split()[1]
                digest = hashlib.sha256(likeness.encode()).hexdigest()[:8]
                (folder / f"{listener}-{status}-{digest}{SUFFIX}").write_bytes(given.raw)

    def report(self) -> str:
        """Say what was broken how often, and what was answered."""
        lines = [f"{self.sent} inputs", f"broken: {dict(self.parts.most_common())}"]
        lines.append(f"answered: {dict(sorted(self.statuses.items()))}")
        lines += [f"{kind}: {dict(sorted(found.items()))}" for kind, found in sorted(self.kinds.items())]
        return "\n  ".join(lines)


def _likeness(given: Input, answer: Answer) -> str:
    """Give what answers of one kind have in common: how they begin, without names and numbers."""
    words = re.sub(rb"'[^']*'|[\w-]{25,}|[^a-z: ]", b"", answer.body[:400]).decode()
    said = "" if answer.streams else (words.partition("message:")[2] or words)[:24]
    return f"{given.internal} {answer.status} {answer.headers.get('content-type')} {said}"


def check_shares(outcome: Outcome) -> None:
    """Check that inputs got past the parser, and past who asks: else nothing is proven by any."""
    assert outcome.share(200, 204, 308) > 0.15, outcome.report()
    assert outcome.share(400) < 0.5, outcome.report()
    assert outcome.share(503) < 0.001, outcome.report()
    assert outcome.share(0) < CLOSED_SHARE_MAX, outcome.report()
    for status_, least in ((401, 0.1), (404, 0.07), (405, 0.02), (408, 0.02), (403, 0.005), (431, 0.005)):
        assert outcome.share(status_) > least, (status_, outcome.report())
    assert (
        min(outcome.parts[part] for part in (*PARTS, *(f"kind {each}" for each in KINDS)))
        > outcome.sent / 200
    )
