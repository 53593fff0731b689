#!/usr/bin/env python3
"""Read a Ferrotape checkpoint (docs/checkpoint-format.md) with nothing but the standard library.

    python3 docs/read_checkpoint.py runs/mnist/ckpt-00000012.ftape

prints what is in the file; `read(path)` returns it as a dictionary. If the package `xxhash` is
installed, every checksum is verified; otherwise structure and lengths are.
"""
import array, struct, sys

try:
    from xxhash import xxh3_128
except ImportError:
    xxh3_128 = None

ROLES, DTYPES = ["params", "buffers", "slots", "history"], [("f", 4), ("d", 8), ("Q", 8)]


class Fields:
    """The fields of a section, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, format):
        (value,) = struct.unpack_from("<" + format, self.data, self.at)
        self.at += struct.calcsize("<" + format)
        return value

    u8 = lambda self: self.take("B")
    u64 = lambda self: self.take("Q")
    f64 = lambda self: self.take("d")
    text = lambda self: self.take(f"{self.u64()}s").decode()
    list = lambda self, *fields: [tuple(f() for f in fields) for _ in range(self.u64())]
    tensor = lambda self: (self.u8(), self.u8(), self.text(), [d for (d,) in self.list(self.u64)],
                           self.u64(), self.u64(), self.take("16s"))


def verify(what, checksum, part):
    if xxh3_128 and checksum != xxh3_128(part).intdigest().to_bytes(16, "little"):
        raise ValueError(f"{what}: damaged")


def read(path):
    data = open(path, "rb").read()
    assert data[:8] == b"\x89FTP\r\n\x1a\n", "not a checkpoint"
    version, count, length, generation = struct.unpack_from("<IIQQ", data, 8)
    assert version == 1 and length == len(data), "newer version, or truncated"
    verify("header", data[112:128], data[:112] + data[128:128 + 64 * count])
    assert data[-64:-56] == b"FTPEND\r\n" and data[-16:] == data[112:128], "bad trailer"
    sections = {}
    for line in range(128, 128 + 64 * count, 64):
        tag, flags, offset, size, checksum = struct.unpack_from("<4sIQQ24x16s", data, line)
        sections[tag.decode()] = part = data[offset:offset + size]
        if tag != b"TDAT":
            verify(tag.decode(), checksum, part)
    field = {tag: Fields(part) for tag, part in sections.items()}
    meta, optm, schd, spec = field["META"], field["OPTM"], field["SCHD"], field["SPEC"]
    state = {"generation": generation, "digest": data[48:64].hex(), "writer": meta.text()}
    state["metric"] = (meta.text(), meta.f64(), bool(meta.u8())) if meta.u8() else None
    state["config"] = dict(field["CONF"].list(field["CONF"].text, field["CONF"].text))
    state["optimizer"] = (optm.text(), dict(optm.list(optm.text, optm.f64)))
    state["schedule"] = (schd.text(), dict(schd.list(schd.text, schd.f64)))
    state["cursor"] = dict(zip("seed epoch step position samples".split(), struct.unpack("<5Q", sections["CURS"])))
    state["monitor"], state["columns"] = spec.text(), [name for (name,) in spec.list(spec.text)]
    state["clock"] = [ms for (ms,) in field["TIME"].list(field["TIME"].u64)] if "TIME" in field else []
    state.update({role: {} for role in ROLES})
    for (entry,) in field["TIDX"].list(field["TIDX"].tensor):
        role, dtype, name, shape, offset, size, checksum = entry
        part = sections["TDAT"][offset:offset + size]
        verify(name, checksum, part)
        values = array.array(DTYPES[dtype][0], part)
        if sys.byteorder == "big":
            values.byteswap()
        state[ROLES[role]][name] = (shape, values)
    return state


if __name__ == "__main__":
    state = read(sys.argv[1])
    for key, value in state.items():
        if key in ROLES:
            for name, (shape, values) in value.items():
                print(f"{key:8} {name} {shape} {values[:4].tolist()}")
        else:
            print(f"{key}: {value}")
    print("every checksum verified" if xxh3_128 else "checksums not verified: install xxhash")
