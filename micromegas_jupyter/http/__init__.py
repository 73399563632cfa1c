"""The one way to call an identity provider: a total deadline, a size cap, no redirects, JSON only.

What an answer means is for `oidc` to say; when to call and how often is the caller's choice.
"""

from micromegas_jupyter.http.answers import HttpAnswer
from micromegas_jupyter.http.provider_http import FormFields, ProviderCalls, ProviderHttp

__all__ = ["FormFields", "HttpAnswer", "ProviderCalls", "ProviderHttp"]
