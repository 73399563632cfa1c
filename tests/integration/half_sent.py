"""Connections that each begin a large message, send as much of it as the server lets them, and never end it.

Source: RFC 9113, sections 5.2 (flow control), 6.5 (SETTINGS), 6.7 (PING), 6.9 (WINDOW_UPDATE).
"""

from __future__ import annotations

import selectors
import struct
from typing import Final

from tests.fakes.raw_http2 import (
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    connect,
    frame,
    request_headers,
)

_ACK: Final = 1
_INITIAL_WINDOW: Final = 4
_FRAME_BYTES: Final = 16384
_FIRST_WINDOW: Final = 65535
_HEAD_BYTES: Final = 9


class HalfSender:
    """One connection with one call; `sent` are the bytes of its message so far."""

    def __init__(self, port, path, token, *, announced, most):
        self.socket = connect(port)
        self.socket.sendall(frame(HEADERS, END_HEADERS, 1, request_headers(path, token)))
        self.socket.setblocking(False)
        self.sent = 0
        self.is_over = False
        self._most = most
        self._head = b"\0" + struct.pack(">I", announced)
        self._first_window = self._stream_window = self._window = _FIRST_WINDOW
        self._in, self._out = b"", b""

    @property
    def wants_more(self):
        return not self.is_over and self.sent < self._most

    @property
    def wants_to_send(self):
        return not self.is_over and (bool(self._out) or self._room() > 0)

    def step(self):
        try:
            self._take(self.socket.recv(1 << 16))
        except (BlockingIOError, InterruptedError):
            pass  # nothing has come
        except OSError:
            self.is_over = True
        while self.wants_to_send:
            if not self._out:
                part = (self._head + bytes(_FRAME_BYTES))[: min(_FRAME_BYTES, self._room())]
                self._head = b""
                self._out = frame(DATA, 0, 1, part)
                self.sent += len(part)
                self._stream_window -= len(part)
                self._window -= len(part)
            try:
                self._out = self._out[self.socket.send(self._out) :]
            except BlockingIOError:
                return
            except OSError:
                self.is_over = True

    def _room(self):
        return min(self._stream_window, self._window, self._most - self.sent)

    def _take(self, data):
        self.is_over = self.is_over or not data
        self._in += data
        while len(self._in) >= _HEAD_BYTES:
            size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + self._in[:_HEAD_BYTES])
            if len(self._in) < _HEAD_BYTES + size:
                return
            body, self._in = self._in[_HEAD_BYTES : _HEAD_BYTES + size], self._in[_HEAD_BYTES + size :]
            self._hear(kind, flags, stream, body)

    def _hear(self, kind, flags, stream, body):
        if kind == WINDOW_UPDATE:
            more = int.from_bytes(body, "big")
            if stream:
                self._stream_window += more
            else:
                self._window += more
        elif kind == SETTINGS and not flags & _ACK:
            for place in range(0, len(body), 6):
                name, value = struct.unpack(">HI", body[place : place + 6])
                if name == _INITIAL_WINDOW:
                    self._stream_window += value - self._first_window
                    self._first_window = value
            self._out += frame(SETTINGS, _ACK, 0)
        elif kind == PING and not flags & _ACK:
            self._out += frame(PING, _ACK, 0, body)
        elif kind in {HEADERS, RST_STREAM}:
            self.is_over = True  # the server has answered


def send_halves(senders, *, look, deadline):
    """Let all send until each has sent what it wants to or is refused; `look` is called again and again."""
    with selectors.DefaultSelector() as selector:
        for sender in senders:
            selector.register(sender.socket, selectors.EVENT_READ, sender)
        while any(sender.wants_more for sender in senders) and not deadline():
            for sender in senders:
                if not sender.is_over:
                    sender.step()
                if sender.is_over and sender.socket in selector.get_map():
                    selector.unregister(sender.socket)
            look()
            if not any(sender.wants_to_send for sender in senders):
                selector.select(0.05)
