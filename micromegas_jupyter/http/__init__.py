"""The one way to call an identity provider: a total deadline, a size cap, no redirects, JSON only."""

from micromegas_jupyter.http.answers import HttpAnswer
from micromegas_jupyter.http.provider_http import FormFields, ProviderCalls, ProviderHttp

__all__ = ["FormFields", "HttpAnswer", "ProviderCalls", "ProviderHttp"]
