"""JSON that records its own digest: a file that is not, byte for byte, what was written is refused.

Its form is {"xxh3": "<32 hex digits>", "<kind>": <content>}; the digest is that of the content's bytes.
"""

import json

import xxhash

_TAIL = b"}\n"


def sealed_json(content: dict, *, kind: str) -> bytes:
    """Return the bytes of a file with `content` under the name `kind`; equal contents give equal bytes."""
    body = json.dumps(content, indent=1, sort_keys=True).encode()
    return _head(_digest(body), kind) + body + _TAIL


def unsealed(sealed: bytes, *, kind: str) -> dict:
    """Return the content of a file, given its bytes; ValueError if they are not what sealed_json returned."""
    start = len(_head(_digest(b""), kind))
    body = sealed[start : -len(_TAIL)]
    found = _digest(body)
    if sealed != _head(found, kind) + body + _TAIL:
        first, last = (part.decode(errors="replace") for part in (sealed[:start], sealed[-len(_TAIL) :]))
        raise ValueError(f"its content has digest {found}, but it begins with {first!r} and ends with {last!r}")
    return json.loads(body)


def _digest(body: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(body)


def _head(digest: str, kind: str) -> bytes:
    return f'{{"xxh3": "{digest}", "{kind}":\n'.encode()
