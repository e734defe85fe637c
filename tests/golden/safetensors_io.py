"""An independent reader and writer of safetensors, of json and numpy alone, for tests/model/safetensors_test.cc.

safetensors_io.py check FILE: every element i of tensor number k (in the order of the file) must be i + k, every
metadata text of key "k" must be "v \\u00e9 \\"k\\""; prints "name dtype shape" a line.
safetensors_io.py write FILE: writes such a file, without hashes, its header not padded."""
import json
import sys
import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
          "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1"}


def elements(dtype, n, k):
    if dtype == "BF16":  # the upper half of a float32
        return ((np.arange(n) + k).astype("<f4").view("<u4") >> 16).astype("<u2")
    return (np.arange(n) + k).astype(DTYPES[dtype])


def check(path):
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header, body, at = json.loads(data[8:8 + size]), data[8 + size:], 0
    assert size % 8 == 0 and header.pop("__metadata__")["k"] == 'v \u00e9 "k"'
    for k, (name, d) in enumerate(header.items()):
        begin, end = d["data_offsets"]
        assert begin == at and body[begin:end] == elements(d["dtype"], int(np.prod(d["shape"])), k).tobytes(), name
        at = end
        print(name, d["dtype"], ",".join(map(str, d["shape"])))
    assert at == len(body)


def write(path):
    header, body = {"__metadata__": {"k": 'v \u00e9 "k"'}}, b""
    for k, dtype in enumerate([*DTYPES, "BF16"]):
        bytes_ = elements(dtype, 6, k).tobytes()
        header[f"t.{dtype}"] = {"data_offsets": [len(body), len(body) + len(bytes_)], "dtype": dtype, "shape": [2, 3]}
        body += bytes_
    text = json.dumps(header, indent=1).encode()
    open(path, "wb").write(len(text).to_bytes(8, "little") + text + body)


{"check": check, "write": write}[sys.argv[1]](sys.argv[2])
