"""The `resource` parameter: which API a token is asked for, at providers that follow RFC 8707.

Which requests carry it is for their builders to say.
"""

import re

from micromegas_jupyter.errors import UsageError

MAX_RESOURCE_CHARACTERS = 2048

# An absolute URI without a fragment, loosely: RFC 8707 section 2. A URN is one, too.
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")


def resource_fields(resource: str | None) -> dict[str, str]:
    """Return the parameters that ask for `resource`, none when it is None or empty.

    Raises:
        UsageError: It is not an absolute URI, or has a fragment.
    """
    if not resource:
        return {}
    if len(resource) > MAX_RESOURCE_CHARACTERS or not _ABSOLUTE_URI.fullmatch(resource):
        raise UsageError("The resource is not an absolute URI without a fragment, as https://lake.example.com is.")
    return {"resource": resource}
