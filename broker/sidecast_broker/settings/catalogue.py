"""Every setting by its name, as documentation, command line and environment see it.

Must not know any section: what there is to know of a setting is read off its field.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from sidecast_broker.settings.settings import sections

ENV_PREFIX = "SIDECAST_"


class Setting(NamedTuple):
    """One setting as documentation and `load` see it.

    Attributes:
        type: its annotation with bounds and description, for `msgspec.convert`.
        metas: the bounds of that annotation, outermost first.
        description: what it sets, one or two sentences.
    """

    section: str
    key: str
    type: Any
    default: Any
    metas: tuple[Meta, ...]
    description: str

    @property
    def name(self) -> str:
        """`section.key`, as in messages and documentation."""
        return f"{self.section}.{self.key}"

    @property
    def env(self) -> str:
        """Its environment variable."""
        return f"{ENV_PREFIX}{self.section}_{self.key}".upper()

    @property
    def masked(self) -> Literal["whole", "url"] | None:
        """How a secret is masked: as a whole, or only the user part of URLs; None: it is no secret."""
        return next((meta.extra["masked"] for meta in self.metas if meta.extra), None)


def _all_settings() -> Iterator[Setting]:
    for section, struct in sections():
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            annotation = hints[field.name]
            said = get_args(annotation)[1:]
            (description,) = (each for each in said if isinstance(each, str))
            yield Setting(
                section,
                field.name,
                operator.getitem(Annotated, (annotation, Meta(description=description))),
                field.default,
                tuple(each for each in reversed(said) if isinstance(each, Meta)),
                description,
            )


SETTINGS: tuple[Setting, ...] = tuple(_all_settings())
"""Every setting, by section, in the order of their documentation."""
