"""Values for settings: any JSON, some that mean something, and any place in a configuration to put them."""

import copy
import json

from hypothesis import strategies as st

from micromegas_jupyter.config.issuers import PRESETS

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "key", "issuer", "audience", "issuers", "token_cache_size", "profiles", "uri"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
any_text = st.text(alphabet=st.characters(), max_size=60)
texts = any_text | json_values.map(json.dumps)


def places(value, place=()):
    inner = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [place, *(found for name, part in inner for found in places(part, (*place, name)))]


def replaced(whole, place, value, *, is_left_out):
    whole = copy.deepcopy(whole)
    if not place:
        return value
    *way, last = place
    part = whole
    for step in way:
        part = part[step]
    if is_left_out:
        del part[last]
    else:
        part[last] = value
    return whole


telling_values = json_values | st.sampled_from(
    [
        *(0, 1, 60, 10**30, 1.5, "", "*", [[]], {}, [{}], {"": []}),
        *("none", "HS256", "id", "{tenantid}", "common", "viewer", "accounts.google.com", *PRESETS),
        *("https://login.microsoftonline.com/common", "https://id.example.com/one"),
    ]
)
