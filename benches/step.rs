//! Criterion benches of whole training steps and of inference on one image.
//!
//! `cargo bench --bench step -- seednet`

mod workloads;

use criterion::{Criterion, Throughput};

use workloads::{Network, STEPS};

fn train_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("train_step");
    for (net, batch) in STEPS {
        Network::check(net, batch);
        let mut network = Network::new(net, batch);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(format!("{net}-b{batch}"), |b| b.iter(|| network.train_step()));
    }
}

fn inference(c: &mut Criterion) {
    let mut network = Network::new("seednet", 1);
    let first = network.infer();
    c.bench_function("inference/seednet-b1", |b| b.iter(|| network.infer()));
    assert_eq!(network.infer(), first, "inference changes nothing");
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    train_step(&mut c);
    inference(&mut c);
    c.final_summary();
}
