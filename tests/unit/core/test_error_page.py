"""An error's code is explained by the program itself, in a terminal and in a notebook."""

import pytest

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.core.error_page import explain_error
from micromegas_jupyter.errors import UsageError, error_classes


@pytest.mark.parametrize("code", error_classes())
def test_every_code_is_explained_without_a_path_that_nobody_has(code):
    text = explain_error(code.lower(), how_to_list="")

    assert text.startswith(f"{code}  {error_classes()[code].__name__}")
    assert not any(markup in text for markup in ("](", ".md", "`", "###"))


@pytest.mark.parametrize(("code", "remedy"), [("SQL04", "Did you mean SQL004?"), ("?", "LIST lists the codes.")])
def test_a_code_that_is_none_is_refused(code, remedy):
    with pytest.raises(UsageError) as refused:
        explain_error(code, how_to_list="LIST")

    assert refused.value.remedy == remedy


def test_the_command_prints_one_entry_or_all_codes(capsys):
    assert (run(["explain", "SQL001"]), run(["explain"])) == (0, 0)

    printed = capsys.readouterr().out
    assert "Cause: The SQL contains a syntax error, or an invalid name, type, or value." in printed
    assert [code for code in error_classes() if f"\n{code}  " not in printed] == []
