"""Pictures in grey: drawn from a number, and made smaller.

As a program, with a width: a picture on stdin, its thumbnail on stdout.
"""

from __future__ import annotations

import random
import sys

SIDE = 256
FACTOR = 4


def drawn(number: int) -> bytes:
    """SIDE x SIDE pixels, always the same for the same number."""
    return random.Random(number).randbytes(SIDE * SIDE)


def shrunk(pixels: bytes, *, width: int) -> bytes:
    """One pixel, their mean, for each square of FACTOR x FACTOR."""
    rows = [pixels[start : start + width] for start in range(0, len(pixels), width)]
    return bytes(
        sum(sum(row[left : left + FACTOR]) for row in rows[top : top + FACTOR]) // FACTOR**2
        for top in range(0, len(rows), FACTOR)
        for left in range(0, width, FACTOR)
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(shrunk(sys.stdin.buffer.read(), width=int(sys.argv[1])))
