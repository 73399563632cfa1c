"""Versions of the access configuration: which of them can be used, and what is used when the newest cannot.

When a version is looked for is `reloading`'s job, joining validators `building`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from micromegas_jupyter.access.building import ValidatorBuilder
from micromegas_jupyter.access.configuration import ConfigurationTexts, Reading
from micromegas_jupyter.access.issuer_files import check_issuer_files
from micromegas_jupyter.access.multi import MultiValidator
from micromegas_jupyter.config.access import AccessSettings, LegacyApiKeys
from micromegas_jupyter.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version that can be used.

    Attributes:
        texts: What it was read from.
        settings: What the texts mean.
        validator: A validator of these settings, not used yet.
    """

    texts: ConfigurationTexts
    settings: AccessSettings
    validator: MultiValidator = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is used from now on.

    Attributes:
        version: The newest version, or what of it can be used, or the one before.
        error: Why it is not the newest version as a whole; None when it is.
        is_final: Whether the same texts would lead here again, so that nobody need try.
    """

    version: Version
    error: Exception | None = None
    is_final: bool = True


class Versions:
    """Makes versions of texts, and chooses among them. For one caller at a time.

    Args:
        builder: Builds the validators.
        legacy_api_keys: What becomes of plain-text keys, whatever the settings say.
        check: Looks at settings before they come into force; may refuse them with a `ConfigurationError`.
    """

    def __init__(
        self,
        builder: ValidatorBuilder,
        *,
        legacy_api_keys: LegacyApiKeys | None,
        check: Callable[[AccessSettings], None] | None,
    ) -> None:
        self._builder = builder
        self._legacy_api_keys = legacy_api_keys
        self._check = check
        self._depends_on_more = False

    def make(self, texts: ConfigurationTexts) -> Version:
        """Return the version that the texts are.

        Raises:
            ConfigurationError: It cannot be used, or nobody could sign in.
        """
        settings = texts.parse()
        if self._legacy_api_keys is not None:
            settings = replace(settings, legacy_api_keys=self._legacy_api_keys)
        if not settings.api_keys and settings.oidc is None:
            raise ConfigurationError(
                "Neither API keys nor an OpenID provider are configured, so nobody could sign in.",
                key="MICROMEGAS_OIDC_CONFIG",
                remedy="Set MICROMEGAS_OIDC_CONFIG or MICROMEGAS_API_KEYS, or name a file that has issuers or keys, "
                "or start the server with --disable-auth.",
            )
        if self._check is not None:
            self._check(settings)
        self._check_files(settings)
        return Version(texts=texts, settings=settings, validator=self._builder.build(settings))

    def choose(self, reading: Reading, *, before: Version) -> Choice:
        """Return the newest version that can be used.

        When it cannot be used as a whole, each file by itself stays as it was, the configuration file first.
        """
        self._depends_on_more = False
        try:
            return Choice(version=self.make(reading.whole()))
        except ConfigurationError as error:
            refusal = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it says nothing about the texts
            return Choice(version=before, error=error, is_final=False)
        for texts in reading.parts():
            if texts.is_same(before.texts):
                continue
            try:
                version = self.make(texts)
            except ConfigurationError:
                continue
            except Exception as error:  # noqa: BLE001 - as above
                return Choice(version=before, error=error, is_final=False)
            return Choice(version=version, error=refusal, is_final=self._is_final(reading))
        return Choice(version=before, error=refusal, is_final=self._is_final(reading))

    def _is_final(self, reading: Reading) -> bool:
        return reading.is_complete and not self._depends_on_more

    def _check_files(self, settings: AccessSettings) -> None:
        try:
            check_issuer_files(() if settings.oidc is None else settings.oidc.issuers)
        except ConfigurationError:
            # The files that issuers name are not watched, and may be right the next time.
            self._depends_on_more = True
            raise
