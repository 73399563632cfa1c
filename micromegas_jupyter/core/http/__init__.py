"""The one way to call an identity provider: a total deadline, a size cap, no redirects, JSON only."""

from micromegas_jupyter.core.http.answers import HttpAnswer
from micromegas_jupyter.core.http.provider_http import FormFields, ProviderCalls, ProviderHttp

__all__ = ["FormFields", "HttpAnswer", "ProviderCalls", "ProviderHttp"]
