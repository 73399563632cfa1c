"""A page with a notebook that is loaded again, as a person does it."""

# What ipywidgets (8.1) draws in place of a widget for good, when the kernel told of it in the last of the pauses, a
# tenth of a second each, in which the two seconds pass that a renderer looks for its model.
GIVEN_UP = "Error displaying widget: model not found"
MOST_RELOADS = 3


def wait_for_widget(page, shown):
    """Wait for what stands in a widget of a page that was loaded again; a widget that was given up is loaded again."""
    given_up = page.get_by_text(GIVEN_UP)
    for _ in range(MOST_RELOADS):
        shown.or_(given_up).first.wait_for()
        if given_up.count() == 0:
            break
        page.reload()
    shown.wait_for()
