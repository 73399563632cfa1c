"""What the other workers say to a worker's question."""

from collections.abc import Mapping
from dataclasses import dataclass

from micromegas_jupyter.assembly.workers.peer import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class OthersAnswers:
    """Answers of the other workers.

    Attributes:
        found: The answers.
        is_complete: Whether each of them has answered.
    """

    found: tuple[Facts, ...]
    is_complete: bool


def read_answers(told: Mapping[str, object]) -> OthersAnswers:
    """Return what the supervisor gathered."""
    answers = told.get("answers")
    found = tuple(one for one in answers if isinstance(one, dict)) if isinstance(answers, list) else ()
    return OthersAnswers(found=found, is_complete=isinstance(answers, list) and told.get("missing") == 0)
