"""Breaks files along their structure: JSON values, headers, tables, members of archives."""

import io
import json
import re
import struct
import zipfile
from copy import deepcopy

NUMBERS = (0, 1, -1, 2, 3, 7, 8, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63,
           2**64 - 1, 10**9, 10**18, 10**30, -2**31, 12_000_000_000)
VALUES = (None, True, False, "", "x", "\ud800", "\0", "a" * 3000, [], {}, [[]], 0.5, -1.5, 1e300,
          float("nan"), float("inf"), [1] * 65, [2**31] * 9, {"a": {"b": []}}, ["x"], [1, 2],
          *NUMBERS)

def places(value, path=()):
    """Yield every (parent, key) of a JSON value."""
    items = (value.items() if isinstance(value, dict) else
             enumerate(value) if isinstance(value, list) else ())
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def mutate_value(value, rng):
    """Edit one to three places of a JSON value: other values, other names, left out, moved."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = list(places(value))
        if not found:
            return value
        parent, key = rng.choice(found)
        what = rng.random()
        if what < 0.45:
            parent[key] = deepcopy(rng.choice(VALUES))
        elif what < 0.6 and isinstance(parent[key], int):
            parent[key] = parent[key] + rng.choice((-1, 1, 2**16, -2**16))
        elif what < 0.75:
            del parent[key]
        elif what < 0.85:
            parent[key] = json.loads(json.dumps(rng.choice(found)[0]))
        elif isinstance(parent, dict):
            parent[rng.choice((str(key) + "x", "", "head_dim", "a.weight"))] = parent.pop(key)
        else:
            parent.append(parent[key])
    return value


def mutate_json(data, rng):
    """Return a JSON text whose values, or whose letters, have changed."""
    what = rng.random()
    text = data.decode()
    if what < 0.7:
        return json.dumps(mutate_value(json.loads(text), rng)).encode("utf-8", "surrogatepass")
    if what < 0.75:
        return rng.choice((b"[" * 100_000, b'{"a":' * 50_000, b"", b"null", b"1", b'"\xff"',
                           b'{"a":1,"a":2}', b"9" * 5000, b"\xef\xbb\xbf" + data,
                           text.encode("utf-16"), b"{}", b"[]"))
    if what < 0.85:  # one number becomes another
        found = list(re.finditer(r"-?\d+(\.\d+)?", text))
        if found:
            at = rng.choice(found)
            other = rng.choice((*map(str, NUMBERS), "1e999", "-0.0", "9" * 4500, "NaN", "1e-400"))
            return (text[:at.start()] + other + text[at.end():]).encode()
    return mutate_bytes(data, rng, len(data))


def mutate_bytes(data, rng, reach):
    """Replace bytes, words, and pieces within the first `reach` bytes; or the end of the file."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not changed:
            break
        at = rng.randrange(min(reach, len(changed)))
        what = rng.random()
        if what < 0.4:
            changed[at] = rng.randrange(256)
        elif what < 0.75:
            size, code = rng.choice(((4, "<I"), (8, "<Q"), (2, "<H")))
            at = min(at & ~(size - 1) if rng.random() < 0.5 else at, max(0, len(changed) - size))
            number = rng.choice(NUMBERS) & (1 << 8 * size) - 1
            changed[at:at + size] = struct.pack(code, number)
        elif what < 0.85:
            piece = changed[at:at + rng.randrange(1, 64)]
            to = rng.randrange(min(reach, len(changed)))
            changed[to:to + len(piece)] = piece
        elif what < 0.95:
            del changed[at:at + rng.randrange(1, 64)]
        else:
            changed = changed[:rng.randrange(len(changed))]
    return bytes(changed)


def mutate_safetensors(data, rng):
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.35:
        return mutate_bytes(data, rng, 8 + length)
    header = mutate_json(data[8:8 + length], rng)
    stated = len(header) if rng.random() < 0.95 else rng.choice(NUMBERS) & (1 << 64) - 1
    return stated.to_bytes(8, "little") + header + data[8 + length:]


def mutate_gguf(data, rng):
    if rng.random() < 0.3:  # a name or a key, found as a text, and what follows it
        found = [m for m in re.finditer(rb"[a-z_]+\.[a-z0-9_.]+", data[:60_000])]
        at = rng.choice(found)
        changed = bytearray(data)
        place = at.end() + rng.choice((0, 4, 8, 12, 16, 20, 24))
        changed[place:place + 8] = struct.pack("<Q", rng.choice(NUMBERS) & (1 << 64) - 1)
        return bytes(changed)
    return mutate_bytes(data, rng, rng.choice((64, 2000, data.find(b"blk.0.") + 1500)))


def mutate_zip(data, rng):
    """Give a member other contents or another compression, or change bytes of the archive."""
    what = rng.random()
    if what < 0.35:
        return mutate_bytes(data, rng, len(data))
    if what < 0.5:  # the directory at the end
        cut = max(0, len(data) - 2000)
        return data[:cut] + mutate_bytes(data[cut:], rng, 2000)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            contents = old.read(name)
            packing = zipfile.ZIP_STORED
            if name == chosen:
                drawn = rng.random()
                if drawn < 0.1:
                    continue
                if drawn < 0.3:
                    packing = zipfile.ZIP_DEFLATED
                elif contents[:1] == b"\x93" and b'"format"' in contents:
                    head, text = contents[:128], contents[128:]
                    contents = head + mutate_json(text, rng).ljust(len(text))
                else:
                    contents = mutate_bytes(contents, rng, 160)
            new.writestr(name, contents, packing)
    return out.getvalue()


def mutant(path, data, rng):
    if path.suffix in (".json", ".lock"):
        return mutate_json(data, rng)
    if path.suffix == ".safetensors":
        return mutate_safetensors(data, rng)
    if data[:4] == b"GGUF":
        return mutate_gguf(data, rng)
    if data[:2] == b"PK":
        return mutate_zip(data, rng)
    return mutate_bytes(data, rng, rng.choice((32, 64, 300, len(data))))
