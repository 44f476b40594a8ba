"""Waits for the Triton server on this machine and asks its encoder for a vector, which must be of unit length.

A server with numpy 2 calls its models ready and answers nothing, so an answer is looked at.
"""

import json
import sys
import time
import urllib.request
from typing import Final

SERVER: Final = "http://127.0.0.1:8000/v2/models/encoder"
SECONDS: Final = 300.0
# "bees" between the marks of its beginning and end, padded to the shortest length that is asked for.
TOKENS: Final = [101, 13734, 102, *[0] * 9]


def until_ready() -> None:
    """Ends the process where the server is not ready in time."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{SERVER}/ready", timeout=5):  # noqa: S310 - an address of this machine
                return
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"triton is not ready after {SECONDS:g} s: {error}")
            time.sleep(0.5)


def vector() -> list[float]:
    """What it answers."""
    inputs = [
        {"name": name, "shape": [1, len(row)], "datatype": "INT64", "data": row}
        for name, row in (("input_ids", TOKENS), ("attention_mask", [int(token > 0) for token in TOKENS]))
    ]
    body = json.dumps({"inputs": inputs}).encode()
    with urllib.request.urlopen(f"{SERVER}/infer", body, timeout=60) as answer:  # noqa: S310
        (output,) = json.load(answer)["outputs"]
    return list(output["data"])


if __name__ == "__main__":
    until_ready()
    found = vector()
    length = sum(value * value for value in found) ** 0.5
    if not 0.99 < length < 1.01:
        sys.exit(f"triton answers {len(found)} numbers of length {length:.3f}, expected a vector of length 1")
    sys.stdout.write(f"triton embeds: {len(found)} numbers of length {length:.3f}\n")
