"""No function names a file of the server."""

import pytest

from micromegas_jupyter.errors import InvalidStatement


def test_the_function_that_names_the_file_of_a_row_does_not_exist(ask):
    with pytest.raises(InvalidStatement):
        ask.table("SELECT input_file_name() FROM log_entries")
