"""A platform without sockets: what it answers is set, what was asked is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from email.utils import format_datetime
from typing import TYPE_CHECKING

from micromegas_jupyter.core.http import Callee, RawAnswer
from micromegas_jupyter.core.system import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request."""

    url: str
    headers: Mapping[str, str]
    platform: Callee


class PlatformScript:
    """Implements `PlatformHttp`; gives its answers in turn and repeats the last one."""

    def __init__(self, *answers):
        self.asked: list[Asked] = []
        self._answers = list(answers)

    def get(self, url, *, headers, platform):
        shown = {name: value.reveal() if isinstance(value, Secret) else value for name, value in headers.items()}
        self.asked.append(Asked(url=url, headers=shown, platform=platform))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(body, *, status=200, headers=None, date=None):
    content = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = dict(headers or {})
    if date is not None:
        sent["date"] = format_datetime(date, usegmt=True)
    return RawAnswer(status=status, headers=sent, body=content)
