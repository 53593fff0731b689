#!/usr/bin/env python3
"""Writes the golden values that tests/golden.rs compares the engine with.

Run by hand (`python3 generate.py`, needs torch and numpy); the tests only read what it wrote.
README.md describes the files. Inputs are random f32 numbers from fixed seeds; PyTorch computes in
float64, so that the values it gives are the true ones once they are rounded to f32.
"""

import math
import pathlib
import struct
import zlib

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
VERSION = 1


class File:
    """Named tensors, in the order in which they were put, and a random generator of its own."""

    def __init__(self, name):
        self.name, self.tensors = name, {}
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def put(self, name, values):
        assert name not in self.tensors, f"{self.name}: {name} is there already"
        with np.errstate(over="ignore"):  # exp(200) is infinite in f32
            self.tensors[name] = np.asarray(values).astype(np.float32)

    def uniform(self, *shape, low=-2.0, high=2.0):
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def case(self, name, op, *inputs, backward=True):
        """One run of `op`: its inputs (a tuple is a shape to be filled with random numbers), its
        output, an upstream gradient and the gradients of all inputs."""
        inputs = [self.uniform(*x) if isinstance(x, tuple) else np.float32(x) for x in inputs]
        leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
        out = op(*leaves)
        for k, x in enumerate(inputs):
            self.put(f"{name}/in{k}", x)
        self.put(f"{name}/out", out.detach())
        if backward:
            upstream = grid(self.rng, out.shape, 1, -7)
            out.backward(torch.tensor(upstream, dtype=torch.float64))
            self.put(f"{name}/upstream", upstream)
            for k, leaf in enumerate(leaves):
                self.put(f"{name}/grad{k}", leaf.grad)

    def write(self):
        data = b"FTGOLD" + struct.pack("<HI", VERSION, len(self.tensors))
        for name, values in self.tensors.items():
            data += struct.pack("<B", len(name)) + name.encode()
            data += struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
            exponent, small = as_i8(values)
            data += struct.pack("<Bb", small is not None, exponent)
            data += (values.astype("<f4") if small is None else small).tobytes()
        (HERE / f"{self.name}.bin").write_bytes(data)
        print(f"{self.name}.bin: {len(self.tensors)} tensors, {len(data)} bytes")


def as_i8(values):
    """`(e, i)` with `values == i * 2**e` exactly and `i` of type int8, or `(0, None)`."""
    for exponent in range(-12, 1):
        scaled = np.ldexp(values.astype(np.float64), -exponent)
        if np.all(np.abs(scaled) <= 127) and np.all(scaled == np.round(scaled)):
            return exponent, scaled.astype(np.int8)
    return 0, None


def grid(rng, shape, bound, exponent):
    """Uniform on [-bound, bound], rounded to int8 multiples of 2**exponent."""
    values = np.round(np.ldexp(rng.uniform(-bound, bound, shape), -exponent))
    return np.ldexp(np.clip(values, -127, 127), exponent).astype(np.float32)


def arithmetic():
    f = File("arithmetic")
    broadcasts = {
        "same": ((3, 4), (3, 4)),
        "scalar": ((3, 5), ()),
        "row": ((3, 5), (5,)),
        "column": ((3, 5), (3, 1)),
        "outer": ((3, 1), (1, 5)),
        "left": ((5,), (2, 3, 5)),
        "rank": ((2, 1, 3, 5), (4, 1, 5)),
        "long": ((67,), (1,)),
    }
    for label, (a, b) in broadcasts.items():
        f.case(f"add/{label}", torch.add, a, b)
        f.case(f"sub/{label}", torch.sub, a, b)
        f.case(f"mul/{label}", torch.mul, a, b)
        # Divisors of either sign, away from zero.
        divisor = f.uniform(*b, low=0.5, high=2.0) * f.rng.choice([-1.0, 1.0], b)
        f.case(f"div/{label}", torch.div, a, divisor)
    f.case("add/itself", lambda x: x + x, (3, 5))
    f.case("sub/itself", lambda x: x - x, (3, 5))
    f.case("mul/itself", lambda x: x * x, (3, 5))
    f.case("neg", torch.neg, (2, 37))
    f.case("exp", torch.exp, f.uniform(2, 37, low=-5, high=5))
    f.case("exp/extreme", torch.exp, [-math.inf, -200, -50, -0.0, 50, 88.5, 200, math.nan], backward=False)
    f.case("log", torch.log, f.uniform(2, 37, low=0.01, high=5))
    f.case("log/extreme", torch.log, [0, 1e-37, 1, 1e37, math.inf, -1, math.nan], backward=False)
    f.case("scale", lambda x: -1.75 * x, (2, 37))
    f.case("add_scalar", lambda x: x + 0.75, (2, 37))
    f.write()


def activations():
    f = File("activations")
    for label, op in {
        "relu": torch.relu,
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
        "gelu": F.gelu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }.items():
        f.case(label, op, f.uniform(3, 37, low=-4, high=4))
        f.case(f"{label}/one", op, (1,))
        extreme = [-math.inf, -100, -20, -8, -1e-4, -0.0, 0, 1e-4, 8, 20, 100, math.inf, math.nan]
        if label == "gelu":  # minus infinity times zero is not a number for PyTorch either
            extreme = extreme[1:-2]
        f.case(f"{label}/extreme", op, extreme, backward=False)
        f.case(f"{label}/large", op, [-100, -20, -8, -1e-4, 0, 1e-4, 8, 20, 100])
    f.write()


def matmul():
    f = File("matmul")
    f.case("matmul/odd", torch.matmul, (7, 5), (5, 9))
    f.case("matmul/row", torch.matmul, (1, 21), (21, 17))
    f.case("matmul/column", torch.matmul, (13, 15), (15, 1))
    f.case("matmul/inner", torch.matmul, (1, 100), (100, 1))
    f.case("matmul/outer", torch.matmul, (19, 1), (1, 18))
    f.case("matmul/deep", torch.matmul, (4, 301), (301, 3))
    f.case("matmul/batched", torch.matmul, (3, 4, 5), (3, 5, 6))
    f.case("matmul/twice_batched", torch.matmul, (2, 3, 4, 5), (2, 3, 5, 2))
    f.case("matmul/shared_right", torch.matmul, (3, 4, 5), (5, 6))
    f.case("matmul/shared_left", torch.matmul, (4, 5), (3, 5, 6))
    f.case("matmul/shared_right_4d", torch.matmul, (2, 3, 4, 5), (5, 6))
    f.case("matmul/itself", lambda x: x @ x, (6, 6))
    f.case("matmul/gram", lambda x: x @ x.T, (5, 7))
    f.case("linear/bias", F.linear, (5, 7), (9, 7), (9,))
    f.case("linear/no_bias", F.linear, (5, 7), (9, 7))
    f.case("linear/one_example", F.linear, (1, 33), (10, 33), (10,))
    f.case("linear/one_output", F.linear, (6, 11), (1, 11), (1,))
    f.case("linear/wide", F.linear, (3, 120), (7, 120), (7,))
    f.write()


def conv2d():
    f = File("conv2d")
    for label, x, w, options in [
        ("plain", (2, 3, 7, 6), (4, 3, 3, 3), {}),
        ("first_layer", (1, 1, 12, 12), (6, 1, 5, 5), {}),
        ("one_by_one", (2, 5, 4, 5), (7, 5, 1, 1), {}),
        ("one_by_one_strided", (2, 5, 5, 6), (7, 5, 1, 1), {"stride": 2}),
        ("whole_image", (3, 2, 4, 5), (5, 2, 4, 5), {}),
        ("same", (1, 3, 8, 9), (5, 3, 3, 3), {"padding": 1}),
        ("oblong", (1, 2, 7, 9), (3, 2, 3, 2), {"padding": (1, 2)}),
        ("padding_beyond_kernel", (1, 2, 4, 3), (3, 2, 2, 2), {"padding": (3, 2)}),
        ("strided", (2, 3, 9, 8), (2, 3, 3, 3), {"stride": (2, 3)}),
        ("strided_same", (2, 3, 8, 8), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
        ("stride_beyond_kernel", (1, 2, 9, 10), (3, 2, 2, 2), {"stride": (3, 4)}),
        ("stem", (1, 3, 11, 12), (3, 3, 7, 7), {"stride": 2, "padding": 3}),
        ("dilated", (1, 2, 9, 9), (2, 2, 3, 3), {"dilation": (2, 1), "padding": (1, 1)}),
        ("dilated_strided", (1, 2, 11, 9), (3, 2, 3, 3),
         {"dilation": (3, 2), "stride": (1, 2), "padding": (2, 3)}),
        ("groups", (2, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
        ("groups_dilated", (1, 6, 7, 7), (9, 2, 3, 3), {"groups": 3, "dilation": 2}),
        ("depthwise", (2, 5, 6, 7), (5, 1, 3, 3), {"groups": 5, "padding": 1}),
        ("depthwise_strided", (1, 3, 7, 6), (6, 1, 3, 3), {"groups": 3, "stride": 2}),
        ("deep", (1, 34, 4, 5), (7, 34, 3, 3), {"padding": 1}),
    ]:
        op = lambda x, w, b=None: F.conv2d(x, w, b, **options)
        f.case(label, op, x, w, (w[0],))
    f.case("no_bias", F.conv2d, (2, 2, 5, 5), (3, 2, 3, 3))
    f.write()


def pool2d():
    f = File("pool2d")
    shapes = [
        ("halves", (2, 2, 6, 8), (2, 2), (2, 2), (0, 0)),
        ("odd", (1, 3, 7, 9), (2, 2), (2, 2), (0, 0)),
        ("wide", (1, 2, 4, 38), (2, 2), (2, 2), (0, 0)),
        ("overlapping", (2, 2, 7, 8), (3, 3), (2, 2), (0, 0)),
        ("padded", (1, 2, 7, 8), (3, 3), (2, 2), (1, 1)),
        ("oblong", (1, 3, 9, 8), (4, 2), (3, 1), (2, 1)),
        ("gaps", (1, 2, 9, 10), (2, 2), (3, 4), (0, 0)),
        ("whole_image", (2, 3, 4, 5), (4, 5), (1, 1), (0, 0)),
    ]
    for label, x, kernel, stride, padding in shapes:
        f.case(f"max/{label}", lambda x: F.max_pool2d(x, kernel, stride, padding), x)
        f.case(f"avg/{label}", lambda x: F.avg_pool2d(x, kernel, stride, padding), x)
    padded = lambda x: F.max_pool2d(x, 3, 2, 1)
    f.case("max/below_padding", padded, f.uniform(1, 2, 6, 7, low=-3, high=-1))
    # Equal elements in a window: the gradient goes to the first in row-major order.
    few = lambda *shape: f.rng.integers(0, 3, shape)
    f.case("max/ties", lambda x: F.max_pool2d(x, 2, 2), few(1, 2, 6, 34))
    f.case("max/ties_padded", padded, few(1, 2, 7, 8))
    holes = f.uniform(1, 2, 8, 10)
    holes[0, 0, 0, 0] = holes[0, 1, 5, 5] = math.nan
    holes[0, 1, 2:4, 2:4] = -math.inf
    f.case("max/not_finite", lambda x: F.max_pool2d(x, 2, 2), holes, backward=False)
    f.case("global_avg", lambda x: x.mean((2, 3)), (2, 5, 7, 6))
    f.write()


def softmax():
    f = File("softmax")
    large = [[1000.0, 999.0, -1000.0], [-1e4, -1e4, -1e4], [88.0, -88.0, 0.0], [-math.inf, 0.0, 1.0]]
    for label, op in {"softmax": torch.softmax, "log_softmax": torch.log_softmax}.items():
        f.case(f"{label}/last", lambda x: op(x, -1), (5, 10))
        f.case(f"{label}/first", lambda x: op(x, 0), (5, 10))
        f.case(f"{label}/middle", lambda x: op(x, -2), (2, 7, 3))
        f.case(f"{label}/vector", lambda x: op(x, 0), (37,))
        f.case(f"{label}/one_class", lambda x: op(x, 1), (4, 1))
        f.case(f"{label}/large", lambda x: op(x, 1), large, backward=False)
    f.write()


def losses():
    f = File("losses")
    for label, shape, options in [
        ("mean", (6, 10), {}),
        ("sum", (6, 10), {"reduction": "sum"}),
        ("none", (6, 10), {"reduction": "none"}),
        ("smooth_mean", (6, 10), {"label_smoothing": 0.1}),
        ("smooth_sum", (6, 10), {"label_smoothing": 0.3, "reduction": "sum"}),
        ("smooth_none", (6, 10), {"label_smoothing": 0.1, "reduction": "none"}),
        ("one_example", (1, 3), {}),
        ("two_classes", (9, 2), {"label_smoothing": 0.1}),
        ("many_classes", (3, 137), {"label_smoothing": 0.1}),
    ]:
        targets = f.rng.integers(0, shape[1], shape[0])
        f.put(f"cross_entropy/{label}/targets", targets)
        f.case(f"cross_entropy/{label}",
               lambda x: F.cross_entropy(x, torch.tensor(targets), **options), shape)
    f.put("cross_entropy/large/targets", [0, 1, 2])
    f.case("cross_entropy/large",
           lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2]), reduction="none"),
           [[1000.0, 999.0, -1000.0], [1000.0, 0.0, 1e4], [-200.0, -200.0, -200.0]])
    f.case("mse/matrix", F.mse_loss, (5, 7), (5, 7))
    f.case("mse/scalar", F.mse_loss, (), ())
    f.write()


def reductions():
    f = File("reductions")
    f.case("sum/all", torch.sum, (3, 5, 7))
    f.case("sum/long", torch.sum, (1001,))
    f.case("mean/all", torch.mean, (3, 5, 7))
    f.case("mean/scalar", torch.mean, ())
    for label, op in {"sum_axes": torch.sum, "mean_axes": torch.mean}.items():
        for case, axes, keepdim in [
            ("first", [0], False),
            ("middle", [1], False),
            ("last", [-1], False),
            ("first_and_last", [0, -1], False),
            ("trailing", [-2, -1], False),
            ("unordered", [2, 0], False),
            ("all", [0, 1, 2], False),
            ("keep_middle", [-2], True),
            ("keep_first_and_last", [0, 2], True),
        ]:
            f.case(f"{label}/{case}", lambda x: op(x, axes, keepdim=keepdim), (3, 5, 7))
        f.case(f"{label}/batch_norm", lambda x: op(x, [0, 2, 3], keepdim=True), (4, 3, 2, 5))
    f.write()


def layout():
    f = File("layout")
    f.case("reshape", lambda x: x.reshape(4, 3, 5), (3, 4, 5))
    f.case("reshape/scalar", lambda x: x.reshape(()), (1, 1))
    f.case("flatten", lambda x: x.flatten(1), (3, 4, 5))
    f.case("transpose", lambda x: x.transpose(0, 1), (3, 5))
    f.case("transpose/negative", lambda x: x.transpose(-1, 0), (3, 4, 5))
    f.case("transpose/last_two", lambda x: x.transpose(-2, -1), (2, 3, 4, 5))
    f.case("permute/cycle", lambda x: x.permute(2, 0, 1), (3, 4, 5))
    f.case("permute/channels_last", lambda x: x.permute(0, 2, 3, 1), (2, 3, 4, 5))
    f.case("permute/identity", lambda x: x.permute(0, 1), (3, 4))
    f.case("concat/first", lambda *x: torch.cat(x, 0), (1, 5), (3, 5), (2, 5))
    f.case("concat/middle", lambda *x: torch.cat(x, 1), (2, 3, 4), (2, 1, 4))
    f.case("concat/last", lambda *x: torch.cat(x, -1), (2, 3, 4), (2, 3, 5))
    f.case("concat/one", lambda x: torch.cat([x], 0), (2, 3))
    f.case("concat/itself", lambda x: torch.cat([x, x], 1), (2, 3))
    f.case("slice/first", lambda x: x[1:3], (4, 5))
    f.case("slice/middle", lambda x: x[:, 2:5], (2, 6, 3))
    f.case("slice/last", lambda x: x[..., 0:2], (2, 3, 4))
    f.case("slice/whole", lambda x: x[:, 0:4], (3, 4))
    f.case("pad/image", lambda x: F.pad(x, (2, 1, 0, 3)), (2, 2, 3, 4))
    f.case("pad/value", lambda x: F.pad(x, (1, 2), value=-1.5), (5,))
    f.case("pad/all", lambda x: F.pad(x, (1, 0, 0, 2, 3, 1), value=0.5), (2, 3, 4))
    f.case("pad/nothing", lambda x: F.pad(x, (0, 0, 0, 0)), (3, 4))
    f.write()


def sgd():
    """Weights after each of six steps on given gradients; the learning rate halves half-way."""
    f = File("sgd")
    steps, n, lr = 6, 37, 0.1
    for label, options in {
        "plain": {},
        "weight_decay": {"weight_decay": 0.02},
        "momentum": {"momentum": 0.9},
        "momentum_decay": {"momentum": 0.9, "weight_decay": 0.02},
        "dampening": {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.02},
        "nesterov": {"momentum": 0.9, "nesterov": True},
        "nesterov_decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
    }.items():
        start, grads = f.uniform(n), f.uniform(steps, n)
        w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=lr, **options)
        path = []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr if step < steps // 2 else lr / 2
            w.grad = torch.tensor(grads[step], dtype=torch.float64)
            optimizer.step()
            path.append(w.detach().clone())
        f.put(f"{label}/start", start)
        f.put(f"{label}/gradients", grads)
        f.put(f"{label}/weights", torch.stack(path))
    f.write()


def training():
    """Twenty steps of the article's network: five batches of eight, visited four times.

    Images and first weights are int8 multiples of powers of two, which keeps the file small. Of
    the two large matrices every `stride`-th weight is recorded at the end, of the others all.
    """
    f = File("training")
    layers = {  # shape, the bound of PyTorch's default initialisation, exponent of the grid
        "conv": ((6, 1, 5, 5), 1 / math.sqrt(25), -9),
        "fc1": ((120, 864), 1 / math.sqrt(864), -12),
        "fc2": ((84, 120), 1 / math.sqrt(120), -10),
        "fc3": ((10, 84), 1 / math.sqrt(84), -10),
    }
    first = {}
    for name, (shape, bound, exponent) in layers.items():
        first[f"{name}.weight"] = grid(f.rng, shape, bound, exponent)
        first[f"{name}.bias"] = grid(f.rng, shape[:1], bound, exponent)
    labels = f.rng.integers(0, 10, (5, 8))
    prototypes = f.rng.uniform(-1, 1, (10, 1, 28, 28))
    noise = f.rng.uniform(-1, 1, (5, 8, 1, 28, 28))
    images = np.round(32 * (prototypes[labels] + noise)).astype(np.float32) / 32
    f.put("images", images)
    f.put("labels", labels)
    for name, values in first.items():
        f.put(f"first/{name}", values)

    for variant, nesterov in {"classical": False, "nesterov": True}.items():
        p = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in first.items()}
        optimizer = torch.optim.SGD(
            p.values(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=nesterov)
        losses = []
        for step in range(20):
            x = torch.tensor(images[step % 5], dtype=torch.float64)
            h = F.conv2d(x, p["conv.weight"], p["conv.bias"]).relu()
            h = F.max_pool2d(h, 2, 2).flatten(1)
            h = F.linear(h, p["fc1.weight"], p["fc1.bias"]).relu()
            h = F.linear(h, p["fc2.weight"], p["fc2.bias"]).relu()
            h = F.linear(h, p["fc3.weight"], p["fc3.bias"])
            loss = F.cross_entropy(h, torch.tensor(labels[step % 5]))
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        f.put(f"{variant}/losses", losses)
        for name, values in p.items():
            stride = {"fc1.weight": 211, "fc2.weight": 23}.get(name, 1)
            f.put(f"{variant}/last/{name}", values.detach().flatten()[::stride])
        print(variant, " ".join(f"{loss:.3f}" for loss in losses))
    f.write()


if __name__ == "__main__":
    torch.set_num_threads(1)
    arithmetic()
    activations()
    matmul()
    conv2d()
    pool2d()
    softmax()
    losses()
    reductions()
    layout()
    sgd()
    training()
