"""How an error passes from one process of a server to another: its class and its words, never its traceback."""

from micromegas_jupyter.errors import ConfigurationError, InternalError, MicromegasError, Unavailable, error_classes


def describe_failure(error: Exception) -> dict[str, str]:
    """Return what `rebuild_failure` makes the error again; others than the package's and the system's are defects."""
    if isinstance(error, OSError):  # its own words name paths
        error = Unavailable(
            f"A worker process cannot use a file or folder that it needs ({type(error).__name__}).",
            remedy="See that the folders for temporary files (TMPDIR, --spill-directory) can be written to, and that "
            "their disks have room.",
        )
    if not isinstance(error, MicromegasError):
        return {"code": InternalError.code, "what": f"A worker process failed: {type(error).__name__}.", "remedy": ""}
    found = {"code": error.code, "what": error.what, "remedy": error.remedy}
    return {**found, "key": error.key} if isinstance(error, ConfigurationError) else found


def rebuild_failure(found: object) -> MicromegasError:
    """Return the error that was described."""
    match found:
        case {"code": str(code), "what": str(what), "remedy": str(remedy), "key": str(key)}:
            kind = error_classes().get(code)
            if kind is not None and issubclass(kind, ConfigurationError):
                return kind(what, key=key, remedy=remedy)
        case {"code": str(code), "what": str(what), "remedy": str(remedy)}:
            kind = error_classes().get(code)
            if kind is not None and not issubclass(kind, ConfigurationError):
                return kind(what, remedy=remedy)
    return InternalError("A worker process failed.", remedy="Look at the server's log.")
