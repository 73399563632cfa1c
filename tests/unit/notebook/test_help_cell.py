import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.extension import unregister
from micromegas_jupyter.notebook.shell import help_as_line_magic


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        ("%%sql --help", "%sql --help\n"),
        ("%%sql rows << --help\n", "%sql rows << --help\n"),
        ("%%micromegas_sql --limit 1 --help\n\n", "%micromegas_sql --limit 1 --help\n"),
        ("%%sql --help\nSELECT 1\n", None),
        ("%%sql --helpful\n", None),
        ("%%sqlite --help\n", None),
        ("x = '%%sql --help'\n", None),
    ],
)
def test_only_a_cell_that_asks_for_help_alone_becomes_a_line(cell: str, becomes: str | None) -> None:
    assert "".join(help_as_line_magic(cell.splitlines(keepends=True))) == (becomes or cell)


def test_it_leaves_with_the_extension(shell: InteractiveShell) -> None:
    unregister(shell)

    assert help_as_line_magic not in shell.input_transformers_cleanup
