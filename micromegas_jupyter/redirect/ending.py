"""How a sign-in ended, as far as the person is told on the last page; it holds no token and no address.

The page itself is `pages`'s.
"""

from dataclasses import dataclass
from typing import Self

from micromegas_jupyter.redirect.pages import Page, failure_page, success_page


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a sign-in.

    Attributes:
        is_signed_in: Whether there is a token.
        who: Whose, as people call them; empty when the tokens do not say, and without a token.
        what: What went wrong, as a sentence; empty with a token.
        remedy: What to do about it.
    """

    is_signed_in: bool
    who: str = ""
    what: str = ""
    remedy: str = ""

    @classmethod
    def signed_in(cls, who: str | None) -> Self:
        """Return the end of a sign-in that went well."""
        return cls(is_signed_in=True, who=who or "")

    @classmethod
    def failed(cls, *, what: str, remedy: str) -> Self:
        """Return the end of a sign-in that did not."""
        return cls(is_signed_in=False, what=what, remedy=remedy)

    def page(self) -> Page:
        """Return the page that says so."""
        if self.is_signed_in:
            return success_page(who=self.who or None)
        return failure_page(what=self.what, remedy=self.remedy)
