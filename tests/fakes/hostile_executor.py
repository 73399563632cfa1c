"""An executor that a statement has taken over: preloaded, it does what a text such as `hostile:NAME:SEED` says.

After one of `LIES` it serves as before; otherwise, every later answer of its is forged.
"""

import json
import os
import random
import re
import socket
import threading
from itertools import repeat

from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.worker import Worker

_REQUEST = re.compile(rb"hostile:(\w+):(\d+)")
_CAP = protocol.MAX_FRAME_BYTES
_TOO_DEEP = b"[" * 100_000
FORGED = "forged"


def _message(kind, body=b"", *, length=None):
    return protocol.HEAD.pack(kind, len(body) if length is None else length) + body


_LATE = _message(protocol.FRAME, b"late") + _message(protocol.END, b"{}")


def _facts(**facts):
    return json.dumps(facts).encode()


def _end(**facts):
    return _message(protocol.END, _facts(**facts))


def _silent(*sent):
    """Send something, and then nothing more, without an end."""
    yield from sent
    threading.Event().wait()


def _cut(*sent):
    """Send something and end."""
    yield from sent
    os._exit(0)


def _endless(kind, size=0, body=None):
    return repeat(_message(kind, os.urandom(size) if body is None else body) * (1 if size else 50))


#: What the front notices: the statement fails, and the executor is ended.
ATTACKS = {
    "largest_length": lambda _: [_message(protocol.FRAME, length=2**32 - 1)],
    "length_above_the_cap": lambda _: [_message(protocol.FRAME, length=_CAP + 1)],
    "many_values": lambda _: [_message(protocol.END, b'{"a": [' + b"0," * (1 << 20) + b"0]}")],
    "half_a_head_and_an_end": lambda _: _cut(b"F\0"),
    "half_a_body_and_an_end": lambda _: _cut(_message(protocol.FRAME, b"half", length=8)),
    "half_a_head_and_silence": lambda _: _silent(b"F\0"),
    "half_a_body_and_silence": lambda _: _silent(_message(protocol.FRAME, b"half", length=_CAP)),
    "endless_reads": lambda _: _endless(protocol.READS, body=b"{}"),
    "endless_tables": lambda _: _endless(protocol.LISTED, body=b'{"tables": []}'),
    "endless_unknown_messages": lambda _: _endless(b"?"),
    "unreadable_end": lambda _: [_message(protocol.END, b"\xff")],
    "listed_end": lambda _: [_message(protocol.END, b"[]")],
    "nested_end": lambda _: [_message(protocol.END, _TOO_DEEP)],
    "long_number": lambda _: [_message(protocol.END, b'{"rows": ' + b"9" * 100_000 + b"}")],
    "unreadable_error": lambda _: [_message(protocol.ERROR, b"{")],
    "nested_error": lambda _: [_message(protocol.ERROR, _TOO_DEEP)],
    "unreadable_reads": lambda _: [_message(protocol.READS, b"nothing")],
    "nested_reads": lambda _: [_message(protocol.READS, _TOO_DEEP[:20_000])],
    "long_reads": lambda _: [_message(protocol.READS, b" " * 100_000 + b"{}")],
    "plan_for_rows": lambda _: [_message(protocol.PLANNED, _facts(schema="", parameters=""))],
    "tables_for_rows": lambda _: [_message(protocol.LISTED, _facts(tables=[["t", ""]])), _end()],
    "count_for_rows": lambda _: [_message(protocol.ACCEPTED, _facts(rows=1)), _end()],
    "start_for_rows": lambda _: [_message(protocol.READY, _facts()), _end()],
}

#: The same in place of a plan.
PLANS = {
    "no_schema": lambda _: [_message(protocol.PLANNED, b"{}")],
    "schema_that_is_no_text": lambda _: [_message(protocol.PLANNED, _facts(schema=[1], parameters={}))],
    "schema_of_other_digits": lambda _: [_message(protocol.PLANNED, _facts(schema="zz", parameters=""))],
    "listed_plan": lambda _: [_message(protocol.PLANNED, b"[]")],
    "rows_for_a_plan": lambda _: [_message(protocol.FRAME, b"x"), _end()],
    "end_for_a_plan": lambda _: [_end()],
}

#: What leaves the statement as it is; the executor is ended.
SURPLUS = {
    "more_than_an_answer": lambda _: [_end() + _LATE],
    "late_answers": lambda _: [_end()],
}

_WRONG = [None, True, -1, 10**30, "x", [], {}, [[]], [[1, 2, 3]], [["x", "y", "z"]], {"a": "b"}, {"t": [1]}, 1e308]
_TEXT = "\r\n\x1b[2J\u202e\0 WARNING micromegas_jupyter.audit forged " * 300

#: What does no harm, and may pass.
LIES = {
    "no_flight_data": lambda _: [*(_message(protocol.FRAME, os.urandom(100)) for _ in range(10)), _end()],
    "not_a_number": lambda _: [_message(protocol.END, b'{"rows": 1e400, "cpu_seconds": -0.0, "bytes_scanned": 1e19}')],
    "log_records": lambda _: [_end(log=[[level, "micromegas_jupyter.audit", _TEXT] for level in (-1, 0, 10**9, 50)])],
    "error_without_a_name": lambda _: [_message(protocol.ERROR, _facts(error=_TEXT, limit=7, is_broken=True))],
    **{
        f"wrong_{name}_{number}": lambda _, name=name, value=value: [_end(**{name: value})]
        for name in ("log", "reads", "rows", "reads_tables", "has_changed_denials", "private_bytes")
        for number, value in enumerate(_WRONG)
    },
}

_KINDS = [bytes([number]) for number in range(256)] + [
    protocol.PLANNED, protocol.READS, protocol.FRAME, protocol.LISTED, protocol.ACCEPTED, protocol.END, protocol.ERROR,
] * 40  # fmt: skip


def _random_value(chance, depth=0):
    if depth < 3 and chance.random() < 0.4:
        values = [_random_value(chance, depth + 1) for _ in range(chance.randrange(4))]
        return values if chance.random() < 0.5 else dict(zip("abcdefgh", values, strict=False))
    return chance.choice(_WRONG)


def _random_body(chance):
    match chance.randrange(4):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            names = chance.sample(["log", "reads", "rows", "error", "is_broken", "limit", "tables", "schema"], 4)
            return _facts(**{name: _random_value(chance) for name in names})
        case 2:
            body = bytearray(_facts(rows=1, log=[[30, "a", "b"]], reads={"t": ["a"]}))
            body[chance.randrange(len(body))] = chance.randrange(256)
            return bytes(body)
    return b"{}"


def _random_messages(seed):
    """Yield a few messages, of which any may be wrong."""
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 8)):
        kind, body = chance.choice(_KINDS), _random_body(chance)
        if chance.random() < 0.1:
            length = chance.choice([0, 1, len(body) + 1, 2**32 - 1, chance.randrange(2**32)])
            yield from _cut(_message(kind, body, length=length))
        yield _message(kind, body)
    yield _message(chance.choice([protocol.END, protocol.ERROR]), b"{}")


def _with_descriptors(front):
    ours = os.open(os.devnull, os.O_RDONLY)
    for _ in range(100):
        socket.send_fds(front, [_message(protocol.FRAME, b"x")], [ours] * 10)
    front.sendall(_end())


class _HostileWorker:
    """What takes the place of `Worker._answer`."""

    answer = Worker._answer
    is_taken_over = False


def _answer(worker, kind, body):
    front = worker._front
    if _HostileWorker.is_taken_over:
        front.sendall(_message(protocol.ERROR, _facts(error=FORGED)))
        return
    found = _REQUEST.search(body)
    if found is None:
        _HostileWorker.answer(worker, kind, body)
        return
    name, seed = found[1].decode(), int(found[2])
    if name == "descriptors":
        _with_descriptors(front)
        return
    _HostileWorker.is_taken_over = name not in LIES
    for sent in {**ATTACKS, **PLANS, **SURPLUS, **LIES, "random": _random_messages, "frames": _frames}[name](seed):
        front.sendall(sent)
    if name == "late_answers":  # once the front has taken the end
        threading.Thread(target=_send_late, args=(front,), daemon=True).start()


def _frames(size):
    return _endless(protocol.FRAME, size)


def _send_late(front):
    front.sendall(_LATE)


Worker._answer = _answer
