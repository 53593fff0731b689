//! Criterion benches of each kernel. Each asserts its result against the naive twin before it is
//! timed; `FERROTAPE_ISA` forces an instruction set, `RAYON_NUM_THREADS` the threads.
//!
//! `cargo bench --bench kernels -- conv2d/A`

mod workloads;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ferrotape_kernels::pool2d::{self, Pool2dDims};
use ferrotape_kernels::sgd::{self, SgdStep};
use ferrotape_kernels::{Write, elementwise, reference, softmax};

use workloads::{CONV_OPS, ConvData, GEMMS, GemmData, SGD_LEN, assert_close, convs, random};

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    for size in GEMMS {
        let mut data = GemmData::new(size);
        data.check();
        group.throughput(Throughput::Elements(data.flops() as u64));
        let (m, k, n) = size;
        group.bench_function(format!("{m}x{k}x{n}"), |b| b.iter(|| data.run()));
    }
}

fn conv2d(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    group.sample_size(10);
    for (name, dims) in convs() {
        ConvData::check(name, dims);
        let mut data = ConvData::new(dims);
        group.throughput(Throughput::Elements(data.flops() as u64));
        for op in CONV_OPS {
            group.bench_function(format!("{name}/{op}"), |b| b.iter(|| data.run(op)));
        }
    }
}

fn pool2d(c: &mut Criterion) {
    let d =
        Pool2dDims { n: 64, c: 64, h: 32, w: 32, kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
    let len = d.n * d.c * d.h * d.w;
    let x = random(len, 1);
    let dy = random(len / 4, 2);
    let (mut y, mut codes, mut dx) = (vec![0.0; len / 4], vec![0; len / 4], vec![0.0; len]);

    pool2d::max_forward(&mut y, Some(&mut codes), &x, &d);
    let window = |i: usize| {
        let (plane, row, col) = (i / 256, i / 16 % 16, i % 16);
        [0, 1, 32, 33].map(|at| x[plane * 1024 + 2 * row * 32 + 2 * col + at])
    };
    for (i, &y) in y.iter().enumerate() {
        assert_eq!(y, window(i).into_iter().fold(f32::MIN, f32::max));
    }
    let mut group = c.benchmark_group("pool2d");
    group.throughput(Throughput::Bytes(len as u64 * 5));
    group.bench_function("max/fwd", |b| {
        b.iter(|| pool2d::max_forward(&mut y, Some(&mut codes), black_box(&x), &d));
    });
    group.bench_function("max/bwd", |b| {
        b.iter(|| pool2d::max_backward(&mut dx, Write::Set, black_box(&dy), &codes, &d));
    });
    group.bench_function("avg/fwd", |b| b.iter(|| pool2d::avg_forward(&mut y, black_box(&x), &d)));
    let mean = |i: usize| f64::from(window(i).into_iter().sum::<f32>()) / 4.0;
    assert_close("avg_pool2d", &y, &(0..y.len()).map(mean).collect::<Vec<_>>());
    group.bench_function("avg/bwd", |b| {
        b.iter(|| pool2d::avg_backward(&mut dx, Write::Set, black_box(&dy), &d));
    });
}

fn elementwise(c: &mut Criterion) {
    type Fast = fn(&mut [f32], &[f32]);
    type Naive = fn(f64) -> f64;
    let ops: [(&str, Fast, Naive); 5] = [
        ("relu", elementwise::relu_forward, reference::elementwise::relu),
        ("exp", elementwise::exp_forward, f64::exp),
        ("tanh", elementwise::tanh_forward, f64::tanh),
        ("sigmoid", elementwise::sigmoid_forward, reference::elementwise::sigmoid),
        ("gelu", elementwise::gelu_forward, reference::elementwise::gelu),
    ];
    let x = random(1 << 20, 1);
    let mut y = vec![0.0; x.len()];
    let mut group = c.benchmark_group("elementwise");
    group.throughput(Throughput::Bytes(8 << 20));
    for (name, forward, naive) in ops {
        forward(&mut y, &x);
        assert_close(name, &y, &x.iter().map(|&x| naive(f64::from(x))).collect::<Vec<_>>());
        group.bench_function(name, |b| b.iter(|| forward(&mut y, black_box(&x))));
    }
}

fn cross_entropy(c: &mut Criterion) {
    let mut group = c.benchmark_group("cross_entropy");
    for classes in [10, 1000] {
        let rows = 128;
        let logits = random(rows * classes, 1);
        let targets: Vec<usize> = (0..rows).map(|row| row * 31 % classes).collect();
        let scale = vec![1.0 / rows as f32; rows];
        let (mut losses, mut log_probs) = (vec![0.0; rows], vec![0.0; rows * classes]);
        let mut dlogits = vec![0.0; rows * classes];
        let mut step = || {
            softmax::cross_entropy_forward(
                &mut losses,
                &mut log_probs,
                &logits,
                &targets,
                0.0,
                rows,
                classes,
            );
            softmax::cross_entropy_backward(
                &mut dlogits,
                Write::Set,
                &scale,
                &log_probs,
                &targets,
                0.0,
                rows,
                classes,
            );
        };
        step();
        group.throughput(Throughput::Bytes((rows * classes * 12) as u64));
        group.bench_function(format!("128x{classes}"), |b| b.iter(&mut step));
        let naive = |row: usize| {
            let logits: Vec<f64> =
                logits[row * classes..][..classes].iter().map(|&x| f64::from(x)).collect();
            logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[targets[row]]
        };
        assert_close("cross_entropy", &losses, &(0..rows).map(naive).collect::<Vec<_>>());
    }
}

fn sgd_momentum(c: &mut Criterion) {
    let settings = SgdStep {
        lr: 1e-5,
        momentum: 0.9,
        dampening: 0.0,
        weight_decay: 0.0,
        nesterov: false,
        first: false,
    };
    let (mut w, mut v, g) = (random(SGD_LEN, 1), random(SGD_LEN, 2), random(SGD_LEN, 3));
    let velocity: Vec<f64> =
        v.iter().zip(&g).map(|(&v, &g)| 0.9 * f64::from(v) + f64::from(g)).collect();
    sgd::step(&mut w, &mut v, &g, &settings);
    assert_close("velocity", &v, &velocity);
    let mut group = c.benchmark_group("sgd");
    group.throughput(Throughput::Bytes(SGD_LEN as u64 * 20));
    group.bench_function("momentum/11M", |b| b.iter(|| sgd::step(&mut w, &mut v, &g, &settings)));
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    gemm(&mut c);
    conv2d(&mut c);
    pool2d(&mut c);
    elementwise(&mut c);
    cross_entropy(&mut c);
    sgd_momentum(&mut c);
    c.final_summary();
}
