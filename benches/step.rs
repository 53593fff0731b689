//! Criterion benches of whole training steps and of inference on one image. Elements are FLOPs, as
//! the report counts them: two per multiply-add of convolutions and linear layers.
//! Each network is compared with its twin in `f64` before it is timed.
//!
//! `cargo bench --bench step -- seednet`

mod workloads;

use std::cell::LazyCell;
use std::process::ExitCode;

use criterion::{Criterion, Throughput};
use ferrotape_kernels::conv2d::winograd_from_env;
use ferrotape_kernels::isa::Isa;

use workloads::{Network, STEPS};

fn train_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("flop/train_step");
    for (net, batch) in STEPS {
        let check = LazyCell::new(|| Network::check(net, batch));
        let mut network = Network::new(net, batch);
        group.throughput(Throughput::Elements(network.step_flops() as u64));
        group.bench_function(format!("{net}-b{batch}"), |b| {
            LazyCell::force(&check);
            b.iter(|| network.train_step());
        });
    }
}

fn inference(c: &mut Criterion) {
    let mut group = c.benchmark_group("flop/inference");
    let check = LazyCell::new(|| Network::check("seednet", 1));
    let mut network = Network::new("seednet", 1);
    group.throughput(Throughput::Elements(network.inference_flops() as u64));
    group.bench_function("seednet-b1", |b| {
        LazyCell::force(&check);
        b.iter(|| network.infer(|scores| scores[0]));
    });
}

fn main() -> ExitCode {
    if let Err(error) = Isa::from_env().and(winograd_from_env()) {
        eprintln!("step: {error}");
        return ExitCode::from(2);
    }
    // On a thread of the pool, as the trainer is.
    rayon::scope(|_| {
        let mut c = Criterion::default().configure_from_args();
        train_step(&mut c);
        inference(&mut c);
        c.final_summary();
    });
    ExitCode::SUCCESS
}
