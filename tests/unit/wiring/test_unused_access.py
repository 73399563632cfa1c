"""An access configuration beside `--disable-auth` is read, said to be unused, and refused when it could not be used."""

from __future__ import annotations

import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.unused_access import check_unused_access


def test_nothing_is_said_where_nothing_is_named(caplog):
    check_unused_access({"MICROMEGAS_API_KEYS": "", "OTHER": "x"})

    assert caplog.records == []


def test_what_is_named_is_said_to_be_unused(caplog, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text("[]")

    check_unused_access({"MICROMEGAS_API_KEY_FILE": str(path), "MICROMEGAS_ADMINS": '["ann@example.com"]'})

    (record,) = caplog.records
    assert record.message == "The access configuration is not used, because of --disable-auth."
    assert record.settings == "MICROMEGAS_API_KEY_FILE, MICROMEGAS_ADMINS"


@pytest.mark.parametrize("variable", ["MICROMEGAS_ACCESS_CONFIG", "MICROMEGAS_API_KEY_FILE"])
@pytest.mark.parametrize("content", [None, "{not JSON"])
def test_a_file_that_could_not_be_used_stops_the_start(tmp_path, variable, content):
    path = tmp_path / "named.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigurationError) as caught:
        check_unused_access({variable: str(path)})

    assert caught.value.key.startswith(variable)
    assert str(tmp_path) not in str(caught.value)
