#!/usr/bin/env python3
"""Writes the HDF5 files that tests/data/h5_test.cc opens, and the bytes that h5py reads from them.

usage: make_h5.py FOLDER PART
A part is a key of PARTS. Of the matrix, expected.bin holds the bytes, in native order, and expected.txt has one line
for each dataset: file, dataset, dtype, offset into expected.bin, shape.
"""
import ctypes
import os
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

out = Path(sys.argv[1])
rng = np.random.default_rng(11)
expected = open(out / "expected.bin", "ab")
lines = open(out / "expected.txt", "a")

DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
FILTERS = [[], ["gzip"], ["shuffle"], ["fletcher32"], ["shuffle", "gzip"], ["gzip", "fletcher32"],
           ["shuffle", "fletcher32"], ["shuffle", "gzip", "fletcher32"]]
SHAPES = {1: ((37,), (5,)), 2: ((13, 9), (4, 4)), 3: ((11, 6, 5), (3, 4, 2)), 4: ((7, 3, 4, 5), (2, 2, 3, 2))}
DONT_FILTER_PARTIAL_CHUNKS = 2
hdf5 = ctypes.CDLL("libhdf5_serial.so.103")  # for what h5py has no function for
hdf5.H5Pset_chunk_opts.argtypes = [ctypes.c_int64, ctypes.c_uint]


def random(shape, dtype):
    """Any bits, every other byte 0 so that they compress."""
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return (rng.integers(0, 256, n) * rng.integers(0, 2, n)).astype(np.uint8).view(dtype).reshape(shape)


def create(f, name, shape, dtype, chunk=None, filters=(), unlimited=(), fill=None, early=False, compact=False,
           edges_filtered=True):
    plist = h5p.create(h5p.DATASET_CREATE)
    kind = dtype if isinstance(dtype, h5t.TypeID) else h5t.py_create(np.dtype(dtype))
    limits = tuple(h5s.UNLIMITED if i in unlimited else n for i, n in enumerate(shape))
    if compact:
        plist.set_layout(h5d.COMPACT)
    if chunk:
        plist.set_chunk(chunk)
        plist.set_alloc_time(h5d.ALLOC_TIME_EARLY if early else h5d.ALLOC_TIME_INCR)
        if not edges_filtered:
            assert hdf5.H5Pset_chunk_opts(plist.id, DONT_FILTER_PARTIAL_CHUNKS) >= 0
    for each in filters:
        {"gzip": lambda: plist.set_deflate(4), "shuffle": plist.set_shuffle,
         "fletcher32": plist.set_fletcher32}[each]()
    if fill is not None:
        plist.set_fill_value(np.array(fill, dtype))
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    return h5py.Dataset(h5d.create(f.id, name.encode(), kind, h5s.create_simple(shape, limits), plist, links))


def expect(d, values=None, dtype=None):
    """Notes what h5py reads, or values of a dtype that h5py has none for."""
    values = d[()] if values is None else values
    name = dtype or values.dtype.name.replace("bool", "int8")
    lines.write(" ".join(map(str, [Path(d.file.filename).name, d.name[1:], name, expected.tell(), *d.shape])) + "\n")
    expected.write(values.astype(values.dtype.newbyteorder("=")).tobytes())


def layouts(f, name, dtype, filters, shape, chunk):
    """layout -> a maker of one dataset of it"""
    rank = len(shape)
    even = tuple(c * max(1, round(n / c)) for n, c in zip(shape, chunk))

    def whole(shape, **options):
        d = create(f, name, shape, dtype, **options)
        d[...] = random(shape, dtype)
        return d

    def sparse(**options):
        d = create(f, name, shape, dtype, fill=np.array([3], dtype)[0], **options)
        d[shape[0] // 2] = random(shape[1:], dtype)
        return d

    return {
        "contiguous": lambda: whole(shape),
        "compact": lambda: whole(shape, compact=True),
        "single": lambda: whole(shape, chunk=shape, filters=filters),
        "implicit": lambda: whole(shape, chunk=chunk, early=True),
        "even": lambda: whole(even, chunk=chunk, filters=filters),
        "odd": lambda: whole(shape, chunk=chunk, filters=filters),
        "growing": lambda: whole(shape, chunk=chunk, filters=filters, unlimited={0}),
        "sideways": lambda: whole(shape, chunk=chunk, filters=filters, unlimited={rank - 1}),
        "unlimited": lambda: whole(shape, chunk=chunk, filters=filters, unlimited=set(range(rank))),
        "edges": lambda: whole(shape, chunk=chunk, filters=filters, edges_filtered=False),
        "sparse": lambda: sparse(chunk=chunk, filters=filters),
        "sparse_growing": lambda: sparse(chunk=chunk, filters=filters, unlimited={0}),
        "sparse_unlimited": lambda: sparse(chunk=chunk, filters=filters, unlimited=set(range(rank))),
        "unwritten": lambda: create(f, name, shape, dtype, fill=5),
        "unwritten_chunks": lambda: create(f, name, shape, dtype, chunk=chunk, filters=filters, fill=5),
    }


def matrix(f):
    """Every (layout, dtype), (layout, filters that it may have), (dtype, byte order); ranks go round."""
    seen = set()
    for k, layout in enumerate(layouts(f, "", "i1", [], *SHAPES[1])):
        for i, kind in enumerate(DTYPES):
            filters = FILTERS[i % len(FILTERS)]
            order = "<>"[(k + i) % 2]
            name = f"{layout}/{order == '>' and 'big' or 'little'}_{kind}"
            d = layouts(f, name, order + kind, filters, *SHAPES[1 + (k + i // 2) % 4])[layout]()
            expect(d)
            seen |= {(layout, kind), (layout, *filters), (kind, order)}
    assert len(seen) == 15 * (len(DTYPES) + len(FILTERS)) + 2 * len(DTYPES)


def many(f):
    """Tables of chunks that have more than one level, with holes."""
    for name, shape, chunk, unlimited in (("many/fixed", (3000,), (1,), ()), ("many/growing", (3000,), (1,), {0}),
                                          ("many/unlimited", (50, 60), (1, 1), {0, 1})):
        for filters in [], ["gzip"]:
            d = create(f, name + "_gzip" * len(filters), shape, "<i4", chunk, filters, unlimited, fill=-1)
            d[...] = random(shape, "<i4")
            expect(d)
            d = create(f, name + "_holes" + "_gzip" * len(filters), shape, "<i4", chunk, filters, unlimited, fill=-1)
            for i in range(1, shape[0], 7):
                d[i] = random(shape[1:], "<i4")
            expect(d)


def shuffled_table(f):
    """Chunks written in another order than they lie in, so offsets jump; then the table grows and shrinks."""
    d = create(f, "special/jumping", (40, 3), "<u2", (4, 2), ["gzip"], {0})
    for i in rng.permutation(40):
        d[i] = random((3,), "<u2")
    d.resize(90, axis=0)
    d.resize(31, axis=0)
    expect(d)


def special(f):
    shuffled_table(f)
    for name, filters in (("checked_first", ["fletcher32", "gzip", "shuffle"]), ("gzip_twice", ["gzip", "gzip"])):
        d = create(f, "special/" + name, (20, 3), ">f4", (8, 2), filters)
        d[...] = random((20, 3), ">f4")
        expect(d)
    d = create(f, "special/skipped", (8, 3), "<i4", (2, 3), ["shuffle", "gzip"])
    d[...] = random((8, 3), "<i4")
    values = random((3, 2, 3), "<i4")
    shuffled = np.ascontiguousarray(values[2].view(np.uint8).reshape(-1, 4).T).tobytes()
    for i, (mask, stored) in enumerate(((3, values[0].tobytes()), (1, zlib.compress(values[1].tobytes())),
                                        (2, shuffled))):
        d.id.write_direct_chunk((2 * i, 0), stored, mask)
    assert (d[:6] == values.reshape(6, 3)).all()
    expect(d)
    d = f.create_dataset("special/bool", data=rng.integers(0, 2, (9, 2)).astype(bool))
    expect(d)
    brain = h5t.IEEE_F32BE.copy()
    brain.set_fields(15, 7, 8, 0, 7)
    brain.set_size(2)
    brain.set_ebias(127)
    values = random((6, 2), ">u2")
    d = create(f, "special/bfloat16", (6, 2), brain)
    d.id.write(h5s.ALL, h5s.ALL, values, mtype=brain)
    expect(d, values, "bfloat16")
    d = create(f, "special/wide_rows", (3, 100000), "<f4", (2, 30000), ["gzip"])
    d[...] = random((3, 100000), "<f4")
    expect(d)
    d = create(f, "special/zeros", (2, 1 << 20), "u1", (1, 1 << 20), ["gzip"])
    d[...] = np.zeros(d.shape)
    expect(d)
    for name, chunk in (("none", None), ("none_chunked", (4, 3))):
        expect(create(f, "special/" + name, (0, 3), "<f4", chunk, unlimited={0} if chunk else ()))
    expect(create(f, "special/no_columns", (4, 0), "<f4"))
    d = create(f, "special/eight_dimensions", (2, 1, 2, 1, 2, 1, 2, 3), "<i2", (1, 1, 2, 1, 2, 1, 1, 2))
    d[...] = random(d.shape, "<i2")
    expect(d)


def passed_over(f):
    """Is no numeric array, or only a name for one."""
    f["scalar"] = 3.0
    f["nine_dimensions"] = np.zeros((1,) * 9)
    f.create_dataset("empty", data=h5py.Empty("f4"))
    f.create_dataset("text", data=["a", "bc"], dtype=h5py.string_dtype())
    f.create_dataset("fixed_text", data=np.array([b"a", b"bc"]))
    f.create_dataset("ragged", shape=(2,), dtype=h5py.vlen_dtype(np.int32))
    f.create_dataset("compound", data=np.zeros(3, [("a", "i4"), ("b", "f4")]))
    f.create_dataset("opaque", data=np.zeros(3, "V5"))
    f.create_dataset("complex", data=np.zeros(3, np.complex64))
    f["soft"] = h5py.SoftLink("/x")
    f["dangling"] = h5py.SoftLink("/nowhere")
    f["named_type"] = np.dtype("f4")
    odd = h5t.IEEE_F32LE.copy()
    odd.set_ebias(120)
    create(f, "odd_bias", (4,), odd)
    short = h5t.STD_I32LE.copy()
    short.set_precision(24)
    create(f, "odd_precision", (4,), short)


def attributes(f):
    f.attrs["about"] = "ein Größenmaß"
    f.attrs["number"] = 4
    for name, value in (("text", "cats and dogs"), ("fixed", np.bytes_("exact")), ("empty", ""),
                        ("list", ["cat", "dog", "bird"]), ("fixed_list", np.array([b"one", b"three"])),
                        ("long", "x" * 5000), ("number", 3.5), ("numbers", [1, 2])):
        f["x"].attrs[name] = value
    space = h5t.C_S1.copy()
    space.set_size(6)
    space.set_strpad(h5t.STR_SPACEPAD)
    a = h5py.h5a.create(f["x"].id, b"spaces", space, h5s.create_simple((2,)))
    a.write(np.array([b"ab    ", b"cdefgh"]), mtype=space)


def good(f):
    f["x"] = np.arange(12, dtype=np.float32).reshape(6, 2)
    f["g/h/y"] = np.arange(6, dtype=np.int16)
    create(f, "none", (0, 3), "<f4")
    create(f, "none_chunked", (0, 3), "<f4", (4, 3), unlimited={0})
    passed_over(f)
    attributes(f)


def huge(f):
    """2^40 rows of which none is stored."""
    for name, unlimited, chunk in (("growing", {0}, (1024, 3)), ("unlimited", {0, 1}, (1, 1)),
                                   ("contiguous", (), None)):
        d = create(f, name, (1 << 40, 3), "<i2", chunk, ["gzip"] * bool(chunk), unlimited, fill=7)


def small(f):
    """A bit of everything, for truncation and mutation."""
    f["plain"] = np.arange(40, dtype=np.float32).reshape(10, 4)
    create(f, "compact", (6, 2), ">i2", compact=True)[...] = 3
    create(f, "g/all", (20, 3), "<i4", (4, 2), ["shuffle", "gzip", "fletcher32"], {0})[...] = random((20, 3), "<i4")
    create(f, "g/both", (10, 3), "<u1", (4, 2), [], {0, 1})[...] = 9
    create(f, "g/fixed", (9,), "<f8", (2,), ["gzip"])[...] = 0.5
    f["plain"].attrs["classes"] = ["a", "b"]
    f["label"] = ["text", "of", "variable", "length"]


def damaged(f):
    """Opens, but chunk 2 of each dataset does not decode. Chunks are of 4 rows."""
    values = random((4, 3), "<i4").tobytes()
    packed = zlib.compress(values)
    for name, filters, stored in (
        ("garbage", ["gzip"], b"this is no deflate stream"),
        ("cut", ["gzip"], packed[:-9]),
        ("adler", ["gzip"], packed[:-1] + bytes([packed[-1] ^ 1])),
        ("short", ["gzip"], zlib.compress(values[:-4])),
        ("long", ["gzip"], zlib.compress(values * 3)),
        ("checksum", ["fletcher32"], values + b"\1\2\3\4"),
        ("no_checksum", ["gzip", "fletcher32"], b"abc"),
        ("bare", ["shuffle"], values[:-1]),
        ("tiny", ["gzip"], zlib.compress(b"")),
    ):
        d = create(f, name, (20, 3), "<i4", (4, 3), filters)
        d[...] = 1
        d.id.write_direct_chunk((8, 0), stored, 0)


def claim(f):
    """A few bytes that are said to be a chunk of 4 GiB, less one element."""
    n = (1 << 30) - 1
    create(f, "x", (10,), "<i4", (n,), ["gzip"], {0}).id.write_direct_chunk((0,), zlib.compress(b"x"), 0)


def refused():
    """Files of one dataset or link each that is not followed, besides a good one."""

    def begin(name, **options):
        f = h5py.File(out / f"{name}.h5", "w", **options)
        f["a"] = np.arange(4)
        return f

    with begin("external_storage") as f:
        (out / "raw.bin").write_bytes(bytes(64))
        f.create_dataset("g/outside", (16,), "i4", external=[(str(out / "raw.bin"), 0, 64)])
    with begin("external_link") as f:
        f["g/elsewhere"] = h5py.ExternalLink("good.h5", "/x")
    with begin("virtual") as f:
        layout = h5py.VirtualLayout((6, 2), "f4")
        layout[...] = h5py.VirtualSource("good.h5", "x", (6, 2))
        f.create_virtual_dataset("g/view", layout)
    with begin("lzf") as f:
        f.create_dataset("g/packed", data=np.zeros(100), chunks=(10,), compression="lzf")
    with begin("scaleoffset") as f:
        f.create_dataset("g/scaled", data=np.zeros(100, "i4"), chunks=(10,), scaleoffset=4)
    with begin("unknown_filter") as f:
        f.create_dataset("g/plugin", shape=(100,), dtype="i4", chunks=(10,), compression=333, allow_unknown_filter=True)
    with begin("many_filters") as f:
        create(f, "g/deep", (8,), "<i4", (4,), ["shuffle"] * 9)
    begin("user_block", userblock_size=512).close()
    with begin("nested") as f:
        f.create_group("/".join(["n"] * 40))
    with begin("loop") as f:
        f["g/again"] = f["/"]
    with begin("two_lines") as f:
        f["g/first\nsecond"] = np.arange(4)
    (out / "empty.h5").write_bytes(b"")
    (out / "text.h5").write_text("x,y\n1,2\n")
    (out / "signature.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (out / "folder.h5").mkdir()


def matrix_files():
    for libver in "earliest", "latest":
        with h5py.File(out / f"{libver}.h5", "w", libver=libver) as f:
            matrix(f)
            many(f)
            special(f)
    marks = {b"TREE": "earliest", b"FAHD": "latest", b"EAHD": "latest", b"BTHD": "latest"}
    for mark, libver in marks.items():
        assert mark in (out / f"{libver}.h5").read_bytes(), mark  # each kind of chunk table is there


def both(name, make):
    for libver in "earliest", "latest":
        with h5py.File(out / f"{name}_{libver}.h5", "w", libver=libver) as f:
            make(f)


def one(name, make):
    with h5py.File(out / f"{name}.h5", "w") as f:
        make(f)


PARTS = {
    "matrix": matrix_files,
    "good": lambda: one("good", good),
    "damaged": lambda: one("damaged", damaged),
    "claim": lambda: one("claim", claim),
    "huge": lambda: both("huge", huge),
    "long": lambda: both("long", lambda f: f.create_dataset("x", data=np.arange(30000, dtype="i4"), chunks=(1,))),
    "small": lambda: both("small", small),
    "refused": refused,
}
PARTS[sys.argv[2]]()
