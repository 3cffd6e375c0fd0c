"""Texts of a PNG: what xdit-gen says of a picture."""

import struct
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        yield kind, png[at + 8 : at + 8 + length]
        at += length + 12


def texts(png: bytes) -> dict[str, str]:
    """Keyword -> text, of tEXt (Latin-1) and iTXt (UTF-8, not compressed) as the worker writes them."""
    found = {}
    for kind, body in chunks(png):
        keyword, _, rest = body.partition(b"\0")
        if kind == b"tEXt":
            found[keyword.decode("latin-1")] = rest.decode("latin-1")
        elif kind == b"iTXt":  # two bytes of compression, language, translated keyword
            found[keyword.decode("latin-1")] = rest[2:].split(b"\0", 2)[2].decode()
    return found
