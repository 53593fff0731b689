//! Criterion benches of each kernel of `ferrotape-kernels`.
//!
//! ```text
//! cargo bench --bench kernels                                  all of them
//! cargo bench --bench kernels -- conv2d/A                      those whose name contains it
//! FERROTAPE_ISA=avx2 cargo bench --bench kernels -- relu       with another instruction set
//! RAYON_NUM_THREADS=1 cargo bench --bench kernels -- gemm      with so many threads
//! FERROTAPE_WINOGRAD=0 cargo bench --bench kernels -- conv2d   without Winograd's products
//! ```
//!
//! `FERROTAPE_ISA` is `scalar`, `avx2`, `avx512` or `neon`. It is read once and holds for the whole
//! process. Without it the best set of the processor is used that the tests run on; NEON has to be
//! asked for. What the processor or this build lacks ends the run before the first row.
//!
//! Before a row is timed, its kernel runs once on the data of the row, and what it wrote is
//! compared with the naive twin: all of it, except for matrix products and convolutions, of which
//! the first, the middle and the last part are. Rows that are not selected are not even set up.
//!
//! In groups named `flop`, criterion's elements are FLOPs: two per multiply-add of the direct
//! algorithm, so that Gelem/s are GFLOP/s. Elsewhere it counts the bytes that must move: each input
//! read once, each output written once.

mod workloads;

use std::hint::black_box;
use std::process::ExitCode;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use ferrotape_kernels::conv2d;
use ferrotape_kernels::elementwise::*;
use ferrotape_kernels::isa::Isa;
use ferrotape_kernels::linear::{self, LinearDims};
use ferrotape_kernels::norm::{self, NormDims, Scale};
use ferrotape_kernels::pool2d::{self, Pool2dDims};
use ferrotape_kernels::reference::{self, elementwise as naive};
use ferrotape_kernels::sgd::{self, SgdStep};
use ferrotape_kernels::{Write, broadcast, layout, reduce, softmax};

use workloads::{CONV_OPS, ConvData, GEMMS, GemmData, SGD_LEN, assert_close, convs, random, wide};

/// Adds a row to a group: makes the data, runs the kernel once, checks what it wrote, and times it
/// on the same data.
fn row<D>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    throughput: Throughput,
    make: impl Fn() -> D,
    run: impl Fn(&mut D),
    check: impl Fn(&D),
) {
    group.throughput(throughput);
    let mut checked = None;
    group.bench_function(name, |b| {
        let data = checked.get_or_insert_with(|| {
            let mut data = make();
            run(&mut data);
            check(&data);
            data
        });
        b.iter(|| run(black_box(data)));
    });
}

/// A row of a kernel that writes one array: `y [len]`, which begins as NaN, from `inputs`. Its
/// throughput is in FLOPs if there are `flops`, else in the bytes of these arrays.
fn array_row<const N: usize>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    flops: Option<usize>,
    len: usize,
    inputs: [usize; N],
    run: impl Fn(&mut [f32], [&[f32]; N]),
    naive: impl Fn([Vec<f64>; N]) -> Vec<f64>,
) {
    let moved = bytes(len + inputs.iter().sum::<usize>());
    let input = |k: usize| random(inputs[k], k as u64);
    row(
        group,
        name,
        flops.map_or(moved, |flops| Throughput::Elements(flops as u64)),
        || (vec![f32::NAN; len], std::array::from_fn(input)),
        |(y, inputs): &mut (_, [Vec<f32>; N])| run(y, inputs.each_ref().map(|x| &x[..])),
        |(y, inputs)| assert_close(name, y, &naive(inputs.each_ref().map(|x| wide(x)))),
    );
}

/// So many floats that must move.
fn bytes(floats: usize) -> Throughput {
    Throughput::Bytes(4 * floats as u64)
}

/// What a twin writes to an array that it is lent.
fn written(len: usize, twin: impl FnOnce(&mut [f64])) -> Vec<f64> {
    let mut array = vec![f64::NAN; len];
    twin(&mut array);
    array
}

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("flop/gemm");
    for size in GEMMS {
        let (m, k, n) = size;
        let flops = Throughput::Elements(2 * (m * k * n) as u64);
        let name = format!("{m}x{k}x{n}");
        row(&mut group, &name, flops, || GemmData::new(size), GemmData::run, GemmData::check);
    }
}

fn conv2d(c: &mut Criterion) {
    let mut group = c.benchmark_group("flop/conv2d");
    group.sample_size(10);
    for (shape, dims) in convs() {
        for op in CONV_OPS {
            row(
                &mut group,
                &format!("{shape}/{op}"),
                Throughput::Elements(dims.flops() as u64),
                || ConvData::new(dims),
                |data| data.run(op),
                |data| data.check(shape, op),
            );
        }
    }
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("flop/linear");
    for (n, i, o) in [(64, 1176, 120), (64, 784, 128), (128, 512, 512), (1, 84, 10)] {
        let d = LinearDims { n, i, o };
        let [x, w, y] = [n * i, o * i, n * o];
        let flops = Some(2 * n * i * o);
        array_row(
            &mut group,
            &format!("{n}x{i}x{o}/fwd"),
            flops,
            y,
            [x, w, o],
            |y, [x, w, bias]| linear::forward(y, x, w, Some(bias), d),
            |[x, w, bias]| written(y, |y| reference::linear::forward(y, &x, &w, Some(&bias), d)),
        );
        array_row(
            &mut group,
            &format!("{n}x{i}x{o}/bwd_data"),
            flops,
            x,
            [y, w],
            |dx, [dy, w]| linear::backward_input(dx, Write::Set, dy, w, d),
            |[dy, w]| written(x, |dx| reference::linear::backward_input(dx, &dy, &w, d)),
        );
        array_row(
            &mut group,
            &format!("{n}x{i}x{o}/bwd_weight"),
            flops,
            w,
            [y, x],
            |dw, [dy, x]| linear::backward_weight(dw, Write::Set, dy, x, d),
            |[dy, x]| written(w, |dw| reference::linear::backward_weight(dw, &dy, &x, d)),
        );
    }
}

/// The gradients of biases: sums over everything but channels.
fn bias(c: &mut Criterion) {
    let mut group = c.benchmark_group("bias");
    for (n, o) in [(64, 120), (128, 512)] {
        let d = LinearDims { n, i: 1, o };
        array_row(
            &mut group,
            &format!("linear/{n}x{o}"),
            None,
            o,
            [n * o],
            |db, [dy]| linear::backward_bias(db, Write::Set, dy, d),
            |[dy]| written(o, |db| reference::linear::backward_bias(db, &dy, d)),
        );
    }
    let shapes = convs();
    for (shape, d) in shapes.iter().filter(|(shape, _)| ["A", "C", "F"].contains(shape)) {
        array_row(
            &mut group,
            &format!("conv2d/{shape}"),
            None,
            d.o,
            [d.y_len()],
            |db, [dy]| conv2d::backward_bias(db, Write::Set, dy, d),
            |[dy]| written(d.o, |db| reference::conv2d::backward_bias(db, &dy, d)),
        );
    }
}

fn pool2d(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool2d");
    let windows = [("2x2", [2, 2], [2, 2], [0, 0]), ("3x3s2p1", [3, 3], [2, 2], [1, 1])];
    for (window, kernel, stride, padding) in windows {
        let d = Pool2dDims { n: 64, c: 64, h: 32, w: 32, kernel, stride, padding };
        let (x_len, y_len) = (d.x_len(), d.y_len());
        // A code is a byte beside the float of its output.
        let max_bytes = Throughput::Bytes((4 * x_len + 5 * y_len) as u64);
        let name = format!("max{window}/fwd");
        row(
            &mut group,
            &name,
            max_bytes.clone(),
            || (vec![f32::NAN; y_len], vec![u8::MAX; y_len], random(x_len, 1)),
            |(y, codes, x)| pool2d::max_forward(y, Some(codes), x, &d),
            |(y, codes, x)| {
                let (want, want_codes) = reference::pool2d::max_forward(&wide(x), &d);
                assert_close(&name, y, &want);
                assert!(*codes == want_codes, "{name}: other elements won");
            },
        );
        let name = format!("max{window}/bwd");
        row(
            &mut group,
            &name,
            max_bytes,
            || {
                let (_, codes) = reference::pool2d::max_forward(&wide(&random(x_len, 1)), &d);
                (vec![f32::NAN; x_len], codes, random(y_len, 2))
            },
            |(dx, codes, dy)| pool2d::max_backward(dx, Write::Set, dy, codes, &d),
            |(dx, codes, dy)| {
                assert_close(&name, dx, &reference::pool2d::max_backward(&wide(dy), codes, &d));
            },
        );
        array_row(
            &mut group,
            &format!("avg{window}/fwd"),
            None,
            y_len,
            [x_len],
            |y, [x]| pool2d::avg_forward(y, x, &d),
            |[x]| reference::pool2d::avg_forward(&x, &d),
        );
        array_row(
            &mut group,
            &format!("avg{window}/bwd"),
            None,
            x_len,
            [y_len],
            |dx, [dy]| pool2d::avg_backward(dx, Write::Set, dy, &d),
            |[dy]| reference::pool2d::avg_backward(&dy, &d),
        );
    }

    // Global average pooling is average pooling whose window is the plane.
    let (rows, hw) = (64 * 64, 32 * 32);
    let (kernel, stride, padding) = ([32, 32], [1, 1], [0, 0]);
    let d = Pool2dDims { n: 64, c: 64, h: 32, w: 32, kernel, stride, padding };
    array_row(
        &mut group,
        "global_avg/fwd",
        None,
        rows,
        [rows * hw],
        |y, [x]| pool2d::global_avg_forward(y, x, rows, hw),
        |[x]| reference::pool2d::avg_forward(&x, &d),
    );
    array_row(
        &mut group,
        "global_avg/bwd",
        None,
        rows * hw,
        [rows],
        |dx, [dy]| pool2d::global_avg_backward(dx, Write::Set, dy, rows, hw),
        |[dy]| reference::pool2d::avg_backward(&dy, &d),
    );
}

/// The name of an element-wise kernel, the kernel, and its twin for one element of each input.
type Elementwise<const N: usize> = (&'static str, fn(&mut [f32], [&[f32]; N]), fn([f64; N]) -> f64);

/// Adds a row for each of `ops`, whose inputs are on `[low, low + 4)`.
fn elementwise_rows<const N: usize>(
    group: &mut BenchmarkGroup<WallTime>,
    low: f32,
    ops: &[Elementwise<N>],
) {
    let len = 1 << 20;
    let input = |k: usize| -> Vec<f32> {
        random(len, k as u64).iter().map(|x| low + 4.0 * (x + 0.5)).collect()
    };
    for (name, fast, naive) in ops {
        row(
            group,
            name,
            bytes((N + 1) * len),
            || (vec![f32::NAN; len], std::array::from_fn(input)),
            |(y, inputs): &mut (_, [Vec<f32>; N])| fast(y, inputs.each_ref().map(|x| &x[..])),
            |(y, inputs)| {
                let one = |i| naive(inputs.each_ref().map(|x| f64::from(x[i])));
                assert_close(name, y, &(0..len).map(one).collect::<Vec<_>>());
            },
        );
    }
}

fn elementwise(c: &mut Criterion) {
    use Write::Set;
    const SLOPE: f32 = 0.125;
    let mut group = c.benchmark_group("elementwise");
    elementwise_rows::<1>(
        &mut group,
        -2.0,
        &[
            ("relu/fwd", |y, [x]| relu_forward(y, x), |[x]| naive::relu(x)),
            (
                "leaky_relu/fwd",
                |y, [x]| leaky_relu_forward(y, x, SLOPE),
                |[x]| naive::leaky_relu(x, SLOPE.into()),
            ),
            ("gelu/fwd", |y, [x]| gelu_forward(y, x), |[x]| naive::gelu(x)),
            ("sigmoid/fwd", |y, [x]| sigmoid_forward(y, x), |[x]| naive::sigmoid(x)),
            ("tanh/fwd", |y, [x]| tanh_forward(y, x), |[x]| x.tanh()),
            ("exp/fwd", |y, [x]| exp_forward(y, x), |[x]| x.exp()),
            ("neg/fwd", |y, [x]| neg_forward(y, x), |[x]| -x),
            ("neg/bwd", |dx, [dy]| neg_backward(dx, Set, dy), |[dy]| -dy),
            ("scale", |y, [x]| scale(y, x, 1.5), |[x]| 1.5 * x),
            ("add_scaled", |dx, [dy]| add_scaled(dx, Set, dy, 1.5), |[dy]| 1.5 * dy),
        ],
    );
    elementwise_rows::<2>(
        &mut group,
        -2.0,
        &[
            (
                "relu/bwd",
                |dx, [dy, y]| relu_backward(dx, Set, dy, y),
                |[dy, y]| if y > 0.0 { dy } else { 0.0 },
            ),
            (
                "leaky_relu/bwd",
                |dx, [dy, x]| leaky_relu_backward(dx, Set, dy, x, SLOPE),
                |[dy, x]| if x > 0.0 { dy } else { f64::from(SLOPE) * dy },
            ),
            (
                "gelu/bwd",
                |dx, [dy, x]| gelu_backward(dx, Set, dy, x),
                |[dy, x]| dy * naive::gelu_derivative(x),
            ),
            (
                "sigmoid/bwd",
                |dx, [dy, y]| sigmoid_backward(dx, Set, dy, y),
                |[dy, y]| dy * y * (1.0 - y),
            ),
            ("tanh/bwd", |dx, [dy, y]| tanh_backward(dx, Set, dy, y), |[dy, y]| dy * (1.0 - y * y)),
            ("exp/bwd", |dx, [dy, y]| exp_backward(dx, Set, dy, y), |[dy, y]| dy * y),
            ("add", |y, [a, b]| add(y, a, b), |[a, b]| a + b),
            ("sub", |y, [a, b]| sub(y, a, b), |[a, b]| a - b),
            ("mul/fwd", |y, [a, b]| mul(y, a, b), |[a, b]| a * b),
            ("mul/bwd", |da, [dy, b]| mul_backward(da, Set, dy, b), |[dy, b]| dy * b),
        ],
    );
    // Logarithms and quotients want what is not near zero.
    elementwise_rows::<1>(
        &mut group,
        0.5,
        &[("log/fwd", |y, [x]| log_forward(y, x), |[x]| x.ln())],
    );
    elementwise_rows::<2>(
        &mut group,
        0.5,
        &[
            ("log/bwd", |dx, [dy, x]| log_backward(dx, Set, dy, x), |[dy, x]| dy / x),
            ("div/fwd", |y, [a, b]| div(y, a, b), |[a, b]| a / b),
            ("div/bwd_a", |da, [dy, b]| div_backward_a(da, Set, dy, b), |[dy, b]| dy / b),
        ],
    );
    elementwise_rows::<3>(
        &mut group,
        0.5,
        &[(
            "div/bwd_b",
            |db, [dy, b, y]| div_backward_b(db, Set, dy, b, y),
            |[dy, b, y]| -dy * y / b,
        )],
    );
}

/// Softmax, its logarithm and cross-entropy of 128 rows.
fn softmax(c: &mut Criterion) {
    let mut group = c.benchmark_group("softmax");
    let rows = 128;
    for cols in [10, 1000] {
        let len = rows * cols;
        let name = |op: &str| format!("{op}/{rows}x{cols}");
        array_row(
            &mut group,
            &name("softmax/fwd"),
            None,
            len,
            [len],
            |y, [x]| softmax::softmax_forward(y, x, rows, cols),
            |[x]| reference::softmax::softmax(&x, cols),
        );
        array_row(
            &mut group,
            &name("softmax/bwd"),
            None,
            len,
            [len, len],
            |dx, [dy, y]| softmax::softmax_backward(dx, Write::Set, dy, y, rows, cols),
            |[dy, y]| reference::softmax::softmax_backward(&dy, &y, cols),
        );
        array_row(
            &mut group,
            &name("log_softmax/fwd"),
            None,
            len,
            [len],
            |y, [x]| softmax::log_softmax_forward(y, x, rows, cols),
            |[x]| reference::softmax::log_softmax(&x, cols),
        );
        array_row(
            &mut group,
            &name("log_softmax/bwd"),
            None,
            len,
            [len, len],
            |dx, [dy, y]| softmax::log_softmax_backward(dx, Write::Set, dy, y, rows, cols),
            |[dy, y]| reference::softmax::log_softmax_backward(&dy, &y, cols),
        );

        let targets: Vec<usize> = (0..rows).map(|row| row * 31 % cols).collect();
        let cross_entropy = |losses: &mut [f32], log_probs: &mut [f32], logits: &[f32]| {
            softmax::cross_entropy_forward(losses, log_probs, logits, &targets, 0.0, rows, cols);
        };
        let op = name("cross_entropy/fwd");
        row(
            &mut group,
            &op,
            bytes(2 * len + rows),
            || (vec![f32::NAN; rows], vec![f32::NAN; len], random(len, 1)),
            |(losses, log_probs, logits)| cross_entropy(losses, log_probs, logits),
            |(losses, log_probs, logits)| {
                let logits = wide(logits);
                let want = reference::softmax::cross_entropy(&logits, &targets, 0.0, cols);
                assert_close(&op, losses, &want);
                assert_close(&op, log_probs, &reference::softmax::log_softmax(&logits, cols));
            },
        );
        let op = name("cross_entropy/bwd");
        row(
            &mut group,
            &op,
            bytes(2 * len + rows),
            || {
                let (mut log_probs, logits) = (vec![0.0; len], random(len, 1));
                cross_entropy(&mut vec![0.0; rows], &mut log_probs, &logits);
                (vec![f32::NAN; len], random(rows, 2), log_probs, logits)
            },
            |(dlogits, dlosses, log_probs, _)| {
                softmax::cross_entropy_backward(
                    dlogits,
                    Write::Set,
                    dlosses,
                    log_probs,
                    &targets,
                    0.0,
                    rows,
                    cols,
                );
            },
            |(dlogits, dlosses, _, logits)| {
                let want = reference::softmax::cross_entropy_backward(
                    &wide(dlosses),
                    &wide(logits),
                    &targets,
                    0.0,
                    cols,
                );
                assert_close(&op, dlogits, &want);
            },
        );
    }
}

fn batch_norm(c: &mut Criterion) {
    const EPS: f32 = 1e-5;
    let mut group = c.benchmark_group("batch_norm");
    for (n, c, hw) in [(64, 64, 32 * 32), (128, 512, 1)] {
        let (d, len) = (NormDims { n, c, hw }, n * c * hw);
        let name = |op: &str| format!("{n}x{c}x{hw}/{op}");
        let layer = || [random(len, 1), random(c, 2), random(c, 3)];
        let statistics = |x: &[f32]| reference::norm::statistics(&wide(x), &d);
        let normal = |x: &[f32], mean: &[f64], var: &[f64], gamma: &[f32], beta: &[f32]| {
            let affine = (&wide(gamma)[..], &wide(beta)[..]);
            reference::norm::batch_norm(&wide(x), (mean, var), affine, EPS.into(), &d)
        };

        let op = name("train");
        row(
            &mut group,
            &op,
            bytes(2 * len + 4 * c),
            || (vec![f32::NAN; len], [(); 2].map(|()| vec![f32::NAN; c]), layer()),
            |(y, [mean, var], [x, gamma, beta])| {
                norm::batch_norm_train(y, mean, var, x, &Scale { gamma, beta, eps: EPS }, &d);
            },
            |(y, [mean, var], [x, gamma, beta])| {
                let (want_mean, want_var) = statistics(x);
                assert_close(&op, mean, &want_mean);
                assert_close(&op, var, &want_var);
                assert_close(&op, y, &normal(x, &want_mean, &want_var, gamma, beta));
            },
        );
        let op = name("eval");
        row(
            &mut group,
            &op,
            bytes(2 * len + 4 * c),
            || {
                let var = random(c, 5).iter().map(|x| x + 1.0).collect::<Vec<_>>();
                (vec![f32::NAN; len], [random(c, 4), var], layer())
            },
            |(y, [mean, var], [x, gamma, beta])| {
                norm::batch_norm_eval(y, x, mean, var, &Scale { gamma, beta, eps: EPS }, &d);
            },
            |(y, [mean, var], [x, gamma, beta])| {
                assert_close(&op, y, &normal(x, &wide(mean), &wide(var), gamma, beta));
            },
        );
        let op = name("bwd");
        row(
            &mut group,
            &op,
            bytes(3 * len + 5 * c),
            || {
                let layer = layer();
                let (mean, var) = statistics(&layer[0]);
                let narrow = |x: Vec<f64>| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
                let gradients = [len, c, c].map(|len| vec![f32::NAN; len]);
                (gradients, random(len, 4), [narrow(mean), narrow(var)], layer)
            },
            |([dx, dgamma, dbeta], dy, [mean, var], [x, gamma, beta])| {
                let (scale, set) = (Scale { gamma, beta, eps: EPS }, Write::Set);
                norm::batch_norm_backward(
                    dx, set, dgamma, dbeta, dy, x, mean, var, &scale, true, &d,
                );
            },
            |([dx, dgamma, dbeta], dy, [mean, var], [x, gamma, _])| {
                let [x, dy, gamma, mean, var] = [x, dy, gamma, mean, var].map(|x| wide(x));
                let (want_dx, want_dgamma, want_dbeta) = reference::norm::batch_norm_backward(
                    &dy,
                    &x,
                    (&mean, &var),
                    &gamma,
                    EPS.into(),
                    true,
                    &d,
                );
                assert_close(&op, dx, &want_dx);
                assert_close(&op, dgamma, &want_dgamma);
                assert_close(&op, dbeta, &want_dbeta);
            },
        );
    }
    running_statistics(&mut group);
}

fn running_statistics(group: &mut BenchmarkGroup<WallTime>) {
    let (channels, momentum, count) = (512, 0.1, 128);
    let make = || [1, 2, 3, 4].map(|seed| random(channels, seed));
    let name = "update_running/512";
    row(
        group,
        name,
        bytes(6 * channels),
        make,
        |[running_mean, running_var, mean, var]| {
            norm::update_running(running_mean, running_var, mean, var, momentum, count);
        },
        |[running_mean, running_var, mean, var]| {
            let [old_mean, old_var, ..] = make();
            let blend = |old: &[f32], new: &[f32], factor: f64| -> Vec<f64> {
                let momentum = f64::from(momentum);
                let one = |(old, new)| (1.0 - momentum) * old + momentum * factor * new;
                wide(old).into_iter().zip(wide(new)).map(one).collect()
            };
            assert_close(name, running_mean, &blend(&old_mean, mean, 1.0));
            assert_close(name, running_var, &blend(&old_var, var, 128.0 / 127.0));
        },
    );
}

/// What moves data: permuted axes, blocks, broadcasting.
fn layout(c: &mut Criterion) {
    let mut group = c.benchmark_group("layout");
    let nchw = [64, 64, 32, 32];
    let len = nchw.iter().product();
    let permutations: [(&str, &[usize], &[usize]); 2] =
        [("nchw_to_nhwc", &nchw, &[0, 2, 3, 1]), ("transpose2048", &[2048, 2048], &[1, 0])];
    for (name, shape, axes) in permutations {
        array_row(
            &mut group,
            &format!("permute/{name}"),
            None,
            len,
            [len],
            |y, [x]| layout::permute(y, Write::Set, x, shape, axes),
            |[x]| reference::layout::permute(&x, shape, axes),
        );
    }

    let (block, corner, origin) = ([64, 64, 28, 28], [0, 0, 2, 2], [0; 4]);
    let block_len = block.iter().product();
    array_row(
        &mut group,
        "copy_block/crop28of32",
        None,
        block_len,
        [len],
        |y, [x]| layout::copy_block(y, &block, &origin, Write::Set, x, &nchw, &corner, &block),
        |[x]| {
            let (dst, src) = ((&block[..], &origin[..]), (&nchw[..], &corner[..]));
            written(block_len, |y| reference::layout::copy_block(y, dst, &x, src, &block))
        },
    );

    let channels = [64, 1, 1];
    array_row(
        &mut group,
        "broadcast_to/channels",
        None,
        len,
        [64],
        |y, [x]| broadcast::broadcast_to(y, &nchw, x, &channels),
        |[x]| reference::layout::broadcast_to(&nchw, &x, &channels),
    );
    array_row(
        &mut group,
        "sum_to/channels",
        None,
        64,
        [len],
        |dx, [dy]| broadcast::sum_to(dx, Write::Set, &channels, dy, &nchw),
        |[dy]| reference::layout::sum_to(&channels, &dy, &nchw),
    );
}

fn reduce(c: &mut Criterion) {
    let mut group = c.benchmark_group("reduce");
    let shape = [64, 64, 32, 32];
    let len = shape.iter().product();
    array_row(
        &mut group,
        "sum",
        None,
        1,
        [len],
        |y, [x]| y[0] = reduce::sum(x),
        |[x]| vec![x.iter().sum()],
    );
    array_row(
        &mut group,
        "sum_squares",
        None,
        1,
        [len],
        |y, [x]| y[0] = reduce::sum_squares(x) as f32,
        |[x]| vec![reference::layout::sum_squares(&x)],
    );
    for (name, axes) in [("channels", &[0, 2, 3][..]), ("images", &[0]), ("planes", &[2, 3])] {
        let kept = (0..4).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).product();
        array_row(
            &mut group,
            &format!("sum_axes/{name}"),
            None,
            kept,
            [len],
            |y, [x]| reduce::sum_axes(y, x, &shape, axes),
            |[x]| reference::layout::sum_axes(&x, &shape, axes),
        );
    }
}

fn sgd(c: &mut Criterion) {
    let mut group = c.benchmark_group("sgd");
    // With momentum three arrays are read and two are written; without, two and one.
    for (name, momentum, moved) in [("momentum/11M", 0.9, 5), ("plain/11M", 0.0, 3)] {
        let settings = SgdStep {
            lr: 0.01,
            momentum,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            first: false,
        };
        let make = || [1, 2, 3].map(|seed| random(SGD_LEN, seed));
        row(
            &mut group,
            name,
            bytes(moved * SGD_LEN),
            make,
            |[w, v, dw]| sgd::step(w, v, dw, &settings),
            |[w, v, dw]| {
                let [old_w, old_v, _] = make();
                let one = |i| {
                    let [w, v, dw] = [&old_w, &old_v, dw].map(|x| f64::from(x[i]));
                    reference::sgd::step(w, v, dw, &settings)
                };
                let (want_w, want_v): (Vec<_>, Vec<_>) = (0..SGD_LEN).map(one).unzip();
                assert_close(name, w, &want_w);
                assert_close(name, v, &want_v);
            },
        );
    }
}

fn main() -> ExitCode {
    if let Err(error) = Isa::from_env().and(conv2d::winograd_from_env()) {
        eprintln!("kernels: {error}");
        return ExitCode::from(2);
    }
    let mut c = Criterion::default().configure_from_args();
    gemm(&mut c);
    conv2d(&mut c);
    linear(&mut c);
    bias(&mut c);
    pool2d(&mut c);
    elementwise(&mut c);
    softmax(&mut c);
    batch_norm(&mut c);
    layout(&mut c);
    reduce(&mut c);
    sgd(&mut c);
    c.final_summary();
    ExitCode::SUCCESS
}
