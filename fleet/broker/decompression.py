"""Bodies of messages decompressed up to a limit: a few kilobytes can be made to hold gigabytes.

Importing this module makes kombu decompress within the limit too, wherever it does so by itself.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from kombu import compression

from fleet.broker.delivery import MOST_BODY_BYTES

MOST_BYTES = MOST_BODY_BYTES


class TooLong(Exception):
    """A body holds more than the limit."""


def decompress(body: bytes, kind: str) -> bytes:
    """The plain body. Raises TooLong, KeyError for a compression that is not known, and what the library raises."""
    plain: bytes = compression.decompress(body, kind)
    if len(plain) > MOST_BYTES:
        raise TooLong(f"it holds more than {MOST_BYTES:,} bytes")
    return plain


def _within(make: Callable[[], Any]) -> Callable[[bytes], bytes]:
    def plain(data: bytes) -> bytes:
        decompressor = make()
        found: bytes = decompressor.decompress(data, MOST_BYTES + 1)
        if len(found) > MOST_BYTES:
            raise TooLong(f"it holds more than {MOST_BYTES:,} bytes")
        if not decompressor.eof:
            raise ValueError("it is cut short")
        return found

    return plain


def _in_parts(make: Callable[[], Callable[[bytes], bytes]]) -> Callable[[bytes], bytes]:
    """For libraries that know no limit: a little at a time, and a look after each."""

    def plain(data: bytes) -> bytes:
        step, found, length = make(), [], 0
        for at in range(0, len(data), 64):
            found.append(step(data[at : at + 64]))
            length += len(found[-1])
            if length > MOST_BYTES:
                raise TooLong(f"it holds more than {MOST_BYTES:,} bytes")
        return b"".join(found)

    return plain


def _brotli() -> Callable[[bytes], bytes]:
    brotli = import_module("brotli")

    process: Callable[[bytes], bytes] = brotli.Decompressor().process
    return process


def _zstd() -> Callable[[bytes], bytes]:
    zstandard = import_module("zstandard")

    decompress: Callable[[bytes], bytes] = zstandard.ZstdDecompressor().decompressobj().decompress
    return decompress


_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": _within(zlib.decompressobj),
    "application/x-bz2": _within(bz2.BZ2Decompressor),
    "application/x-lzma": _within(lzma.LZMADecompressor),
    "application/x-brotli": _in_parts(_brotli),
    "application/zstd": _in_parts(_zstd),
}


def _bound_kombu() -> None:
    for kind, decoder in _DECODERS.items():
        if kind in compression._decoders:
            compression.register(compression._encoders[kind], decoder, kind)


_bound_kombu()
