"""What can still be read of a configuration text that cannot be used as a whole.

What is done with the parts is the reader's choice; the whole is read in `access_config`.
"""

from micromegas_jupyter.settings.api_keys import ApiKeySetting, read_api_keys
from micromegas_jupyter.settings.decoding import as_list, as_object, as_texts, decode_setting

_PLACE = "MICROMEGAS_ACCESS_CONFIG"


def read_denied(config_text: str) -> tuple[str, ...]:
    """Return the configuration's `denied`; whether its entries can meet anybody is not checked.

    Raises:
        ConfigurationError: The text, or that member, is malformed.
    """
    denied = as_object(decode_setting(config_text, _PLACE), _PLACE).get("denied", [])
    place = f"{_PLACE}.denied"
    return as_texts(denied, place) if as_list(denied, place) else ()


def read_listed_keys(config_text: str) -> tuple[ApiKeySetting, ...]:
    """Return the configuration's own `api_keys`.

    Raises:
        ConfigurationError: The text, or that member, is malformed.
    """
    keys = as_object(decode_setting(config_text, _PLACE), _PLACE).get("api_keys", [])
    return read_api_keys(keys, f"{_PLACE}.api_keys")
