"""Proves that weights go from PyTorch, NumPy and safetensors to Ferrotape and back. Run by hand:

    pip install torch safetensors numpy
    python3 tests/golden/interop.py                  write the interop* files of this directory
    cargo test --test interop                        read them; write others of the same kind
    python3 tests/golden/interop.py check            read what Ferrotape has written

Ferrotape writes to interop/python in Cargo's directory for tests (CARGO_TARGET_TMPDIR). If that is not
the usual one, name the directory after "check".

The last step loads Ferrotape's weights into PyTorch, strictly, and compares the outputs of the
two; compares .safetensors, .npz and the checkpoint itself (read with docs/read_checkpoint.py) bit
by bit; and reads .npy. Written with torch 2.15.0, safetensors 0.8.0 and numpy 2.4.6.
"""
import os
import sys

import numpy
import safetensors.numpy
import safetensors.torch
import torch

here = os.path.dirname(os.path.abspath(__file__))
written = os.path.join(here, "..", "..", "target", "tmp", "interop", "python")


def model():
    """The network of tests/interop.rs, with the names that nn.Sequential gives."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2, 2),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 3 * 3, 3),
    )


def write():
    os.chdir(here)
    weights = {
        "conv.weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3) / 4 - 0.5,
        "scalar": numpy.array(0.1, dtype=numpy.float32),
    }
    numpy.savez("interop.npz", **weights)
    numpy.savez_compressed("interop-compressed.npz", **weights)
    safetensors.numpy.save_file(weights, "interop.safetensors", metadata={"format": "np"})

    # Every type that can become f32, and an array in Fortran order.
    numbers = numpy.array([[0, 1, 2], [5, 100, 127]])
    names = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"
    arrays = {name: numbers.astype(name) for name in names.split()}
    numpy.savez("interop-types.npz", fortran=numpy.asfortranarray(arrays["float32"]), **arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors["bfloat16"] = tensors["float32"].to(torch.bfloat16)
    safetensors.torch.save_file(tensors, "interop-types.safetensors")
    numpy.save("interop-fortran.npy", numpy.asfortranarray(numbers / 8))

    torch.manual_seed(0)
    network = model()
    x = torch.randn(5, 2, 6, 6)
    safetensors.torch.save_file(network.state_dict(), "interop-torch.safetensors")
    with torch.no_grad():
        y = network(x)
    numpy.savez("interop-torch-outputs.npz", x=x.numpy(), y=y.numpy())


def check(directory):
    sys.path.insert(0, os.path.join(here, "../../docs"))
    from read_checkpoint import read

    def path(name):
        return os.path.join(directory, name)

    network = model()
    network.load_state_dict(safetensors.torch.load_file(path("model.safetensors")), strict=True)
    io = numpy.load(path("outputs.npz"))
    with torch.no_grad():
        y = network(torch.from_numpy(io["x"])).numpy()
    error = numpy.abs(y - io["y"]).max()
    assert error < 1e-5, error
    print(f"PyTorch computes the same outputs with Ferrotape's weights, within {error:.1e}")

    state = read(path("model.ftape"))
    expected = {
        name: numpy.array(values, dtype=numpy.float32).reshape(shape)
        for role in ("params", "buffers")
        for name, (shape, values) in state[role].items()
    }
    stored = safetensors.numpy.load_file(path("model.safetensors"))
    for arrays in (stored, dict(numpy.load(path("model.npz")))):
        assert arrays.keys() == expected.keys(), (arrays.keys(), expected.keys())
        for name, array in expected.items():
            assert arrays[name].tobytes() == array.tobytes(), name
            assert arrays[name].shape == array.shape, name
    print(f"{len(expected)} arrays have the same bits in .ftape, .safetensors and .npz")

    with safetensors.safe_open(path("model.safetensors"), "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert (numpy.load(path("input.npy")) == io["x"]).all()
    print(".npy is read by NumPy")


match sys.argv[1:]:
    case []:
        write()
    case ["check", *directory]:
        check(*directory or [written])
    case _:
        sys.exit(__doc__)
