"""What a verbose traceback (IPython's `%xmode Verbose`, cgitb, rich) would show of an error."""

from pathlib import Path
from traceback import StackSummary, TracebackException

import pytest

import micromegas_jupyter
from micromegas_jupyter.errors import MicromegasError

_PACKAGE = Path(micromegas_jupyter.__file__).parent


def traceback_with_variables(error):
    """Return the traceback with the variables of each frame of the package; the tests' own frames are left out."""
    shown = TracebackException.from_exception(error, capture_locals=True)
    cause = shown
    while cause is not None:
        own = [frame for frame in cause.stack if Path(frame.filename).is_relative_to(_PACKAGE)]
        cause.stack = StackSummary.from_list(own)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "".join(shown.format())


def verbose_traceback(call):
    with pytest.raises(MicromegasError) as caught:
        call()
    return traceback_with_variables(caught.value)
