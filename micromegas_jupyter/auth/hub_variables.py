"""The variables by which a program knows that a JupyterHub with the sign-in service started its server.

What follows from that is `surroundings`' and `hub_place`'s to say.
"""

from collections.abc import Mapping

# Set by this project's JupyterHub service. A gateway passes on to a kernel what begins with KERNEL_ and nothing else.
HUB_VARIABLE = "KERNEL_MICROMEGAS_HUB"
# Set by JupyterHub for every server that it starts: the server's own credential at the Hub.
HUB_TOKEN_VARIABLE = "JUPYTERHUB_API_TOKEN"  # noqa: S105 - a variable's name, not a token


def is_below_hub(environ: Mapping[str, str]) -> bool:
    """Whether a Hub with the sign-in service started this program's server, and its token is here.

    A kernel behind a gateway knows of the service, but has no token for it.
    """
    return bool(environ.get(HUB_VARIABLE)) and bool(environ.get(HUB_TOKEN_VARIABLE))
