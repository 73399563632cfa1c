"""Pictures for the docs, taken by the tests that have just checked what they show."""

from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: Each picture of docs/images, and the test that takes it.
MAKERS = {
    name: f"tests/integration/{test}"
    for test, names in {
        "binder/test_sign_in.py::test_the_quickstart_signs_in_and_queries": ("binder-light", "binder-dark"),
        "browser/test_result_grid.py::test_what_a_filter_leaves_is_sorted": ("grid-light",),
        "hub/test_lab.py::test_nothing_has_to_be_clicked_and_the_card_says_who_signed_in": (
            "jupyterhub-light",
            "jupyterhub-dark",
        ),
    }.items()
    for name in names
}


@pytest.fixture
def save_screenshot(request):
    """Save a page, or a part of one, as a picture of the test in `MAKERS`; the test has to save each of its own.

    They are taken with `--save-screenshots` only.
    """
    own = {name for name, test in MAKERS.items() if request.node.nodeid.split("[")[0] == test}
    saves = request.config.getoption("--save-screenshots")
    saved = set()

    def save(shown, name):
        assert name in own
        if saves:
            shown.screenshot(path=str(IMAGES / f"{name}.png"), animations="disabled")
        saved.add(name)

    yield save
    assert own <= saved or request.session.testsfailed, f"not taken: {sorted(own - saved)}"
