"""Brings one issuer's keys from where its setting says they are.

What the documents mean is `oidc`'s rule, the call itself is `http`'s job; when to fetch is decided by `key_source`.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from micromegas_jupyter.access.file_rights import find_rights_problem
from micromegas_jupyter.access.named_files import ReadFile, mark_of_named_file, read_named_file
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.core.http import FormFields
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ProviderMisbehaved, ProviderUnavailable
from micromegas_jupyter.oidc.discovery import build_metadata_url, parse_jwks_uri
from micromegas_jupyter.oidc.keys import KeySet, parse_key_set

if TYPE_CHECKING:
    from micromegas_jupyter.core.files import FileMark

MAX_KEY_FILE_BYTES = 1_000_000
MAX_TOKEN_FILE_BYTES = 16 * 1024

_VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]+")
_DEFAULT_PORTS = {"https": 443, "http": 80}


class ProviderAnswer(Protocol):
    """A provider's answer."""

    @property
    def status(self) -> int:
        """The HTTP status: 2xx, or 4xx with an error in JSON."""
        ...

    @property
    def body(self) -> object:
        """The decoded JSON document."""
        ...

    @property
    def reached_private(self) -> bool:
        """Whether it came from an address inside a network."""
        ...


class ProviderDocuments(Protocol):
    """The way to a provider's documents."""

    def fetch_json(
        self, url: str, *, headers: FormFields | None = None, refuses_private: bool = False
    ) -> ProviderAnswer:
        """Fetch one document within a total deadline and a size cap, following no redirect.

        Raises:
            Unavailable: No proper answer in time, or a private address that is refused.
            ProviderMisbehaved: The answer breaks the protocol.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where keys are; an address that a provider named may be private only if the provider is at one itself."""

    url: str
    refuses_private: bool = False


class KeyFetch:
    """Fetches one issuer's keys. Used by one thread at a time, but for `is_outdated`.

    Args:
        setting: Says where the keys are: in a file, at an address, or where the discovery document says.
        http: The way to the provider; the caller closes it.
        read_file: Reads the files that the setting names.
    """

    def __init__(
        self, setting: IssuerSetting, *, http: ProviderDocuments, read_file: ReadFile = read_named_file
    ) -> None:
        self._setting = setting
        self._http = http
        self._read_file = read_file
        self._known_place: _Place | None = None
        self._mark: FileMark | None = None

    def is_outdated(self) -> bool:
        """Whether the key file has changed since it was read; never for keys that a provider publishes."""
        path = self._setting.jwks_file
        return path is not None and mark_of_named_file(path) != self._mark

    def fetch(self, *, rediscover: bool) -> KeySet:
        """Return the issuer's keys.

        Args:
            rediscover: Whether to ask again where they are. After a failure that is done in any case.

        Raises:
            Unavailable: The provider or the file gives no answer.
            ProviderMisbehaved: What it gives is not acceptable.
        """
        if self._setting.jwks_file is not None:
            # The mark comes first: a change during the reading is then seen as one.
            self._mark = mark_of_named_file(self._setting.jwks_file)
            self._check_rights(self._setting.jwks_file)
            return self._parsed(self._read_document(self._setting.jwks_file))
        place, self._known_place = self._known_place, None
        if place is None or rediscover:
            place = self._find_place()
        keys = self._parsed(self._fetch_document(place).body)
        self._known_place = place
        return keys

    def _find_place(self) -> _Place:
        setting = self._setting
        if setting.jwks_url is not None:
            return _Place(url=setting.jwks_url)
        url = setting.discovery_url or build_metadata_url(setting.issuer)
        answer = self._fetch_document(_Place(url=url))
        named = parse_jwks_uri(answer.body, issuer=setting.issuer, tenant=setting.tenant, read_from=url)
        return _Place(url=named, refuses_private=not answer.reached_private)

    def _parsed(self, document: object) -> KeySet:
        return parse_key_set(document, issuer=self._setting.issuer, tenant=self._setting.tenant)

    def _fetch_document(self, place: _Place) -> ProviderAnswer:
        headers = self._headers_for(place.url)
        answer = self._http.fetch_json(place.url, headers=headers, refuses_private=place.refuses_private)
        if answer.status != HTTPStatus.OK:
            raise ProviderUnavailable(f"{self._setting.issuer} answered with status {answer.status}.")
        return answer

    def _headers_for(self, url: str) -> FormFields | None:
        path = self._setting.bearer_token_file
        if path is None or not self._may_see_token(url):
            return None
        text = self._read(path, MAX_TOKEN_FILE_BYTES).strip()
        if not _VISIBLE_ASCII.fullmatch(text):
            raise ProviderUnavailable(
                f"The file with the token for fetching the keys of {self._setting.issuer} holds no token."
            )
        return {"Authorization": Secret(f"Bearer {text.decode('ascii')}")}

    def _may_see_token(self, url: str) -> bool:
        # With certificates of its own, every host of this issuer is one that the administrator vouches for. Without,
        # a document could send the token anywhere.
        configured = self._setting.jwks_url or self._setting.discovery_url or self._setting.issuer
        return self._setting.ca_file is not None or _origin(url) == _origin(configured)

    def _check_rights(self, path: str) -> None:
        # One that cannot be looked at cannot be read either, and the reading says why.
        with suppress(OSError, ValueError):
            problem = find_rights_problem(Path(path).stat())
            if problem is not None:
                raise ProviderUnavailable(f"A file that {self._setting.issuer} needs {problem}.")

    def _read_document(self, path: str) -> object:
        try:
            return decode_strict_json(self._read(path, MAX_KEY_FILE_BYTES).decode("utf-8"))
        except (UnicodeDecodeError, JsonError):
            raise ProviderMisbehaved(f"The file with the keys of {self._setting.issuer} is not valid JSON.") from None

    def _read(self, path: str, max_bytes: int) -> bytes:
        try:
            return self._read_file(path, max_bytes)
        except OSError as error:
            reason = error.strerror or "it cannot be opened"
        except ValueError:
            reason = "its name is malformed"
        raise ProviderUnavailable(f"A file that {self._setting.issuer} needs cannot be read: {reason}.")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
