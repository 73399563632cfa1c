"""HTTP/2 frames made by hand, for clients that no library would be. Source: RFC 9113, RFC 7541."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
ACK = 1
CANCEL = 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name, value):
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def request_headers(path, token):
    fields = {
        ":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers",
        "content-type": "application/grpc", "authorization": f"Bearer {token}",
    }  # fmt: skip
    return b"".join(header(name, value) for name, value in fields.items())


def grpc_message(message):
    return b"\0" + struct.pack(">I", len(message)) + message


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection


def read_frame(stream):
    """The kind, flags, stream and payload of the next frame."""
    head = stream.read(9)
    if len(head) < 9:
        raise EOFError
    size, kind, flags, number = struct.unpack(">IBBI", b"\0" + head)
    return kind, flags, number, stream.read(size)
