"""Writes the interop.* files: weights as NumPy and the safetensors package save them.

    pip install numpy safetensors
    python3 tests/golden/interop.py                              write them
    python3 tests/golden/interop.py x.safetensors x.npz x.ftape  compare three exports of a file

The second form reads what `ferrotape export` has written, and the checkpoint itself with
docs/read_checkpoint.py, and fails unless all hold the same arrays.
"""
import os
import sys

import numpy
from safetensors.numpy import load_file, save_file

here = os.path.dirname(os.path.abspath(__file__))
if len(sys.argv) == 1:
    os.chdir(here)
    weights = {
        "conv.weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3) / 4 - 0.5,
        "scalar": numpy.array(0.1, dtype=numpy.float32),
    }
    numpy.savez("interop.npz", **weights)
    numpy.savez_compressed("interop-compressed.npz", **weights)
    save_file(weights, "interop.safetensors", metadata={"format": "np"})
else:
    sys.path.insert(0, os.path.join(here, "../../docs"))
    from read_checkpoint import read

    state = read(sys.argv[3])
    expected = {
        name: numpy.array(values, dtype=numpy.float32).reshape(shape)
        for role in ("params", "buffers")
        for name, (shape, values) in state[role].items()
    }
    for arrays in (load_file(sys.argv[1]), dict(numpy.load(sys.argv[2]))):
        assert arrays.keys() == expected.keys(), (arrays.keys(), expected.keys())
        for name, array in expected.items():
            assert arrays[name].tobytes() == array.tobytes(), name
            assert arrays[name].shape == array.shape, name
    print(f"{len(expected)} arrays are the same in all three")
