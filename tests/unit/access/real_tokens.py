"""A token as a real provider gives it, with settings that accept it and near misses; the tokens stand in two tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fakes.mint import NOW_SECONDS, mint_raw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.config.issuers import IssuerSetting

WITHOUT = object()

Miss = tuple[dict[str, object], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealToken:
    """A provider's token.

    Attributes:
        setting: Accepts it.
        claims: Its payload.
        expected: What the context says, by attribute.
        near_misses: By what is different: the changed claims (`WITHOUT` removes one; `typ!` is the header's), and the
            reason of the refusal.
        header: The header beyond `alg` and `kid`.
    """

    setting: IssuerSetting
    claims: Mapping[str, object]
    expected: Mapping[str, object]
    near_misses: Mapping[str, Miss]
    header: Mapping[str, object] = field(default_factory=lambda: {"typ": "JWT"})

    def text(self, changes: Mapping[str, object] | None = None) -> str:
        """Sign the token, with changes."""
        times = {"iat": NOW_SECONDS - 10, "exp": NOW_SECONDS + 3590}
        claims = {**self.claims, **{name: times.get(name) for name in times if name not in self.claims}}
        header = dict(self.header)
        for name, value in (changes or {}).items():
            if name == "typ!":
                header["typ"] = value
            else:
                claims[name] = value
        kept = {name: value for name, value in claims.items() if value is not WITHOUT}
        return mint_raw(json.dumps(kept).encode(), header=header)
