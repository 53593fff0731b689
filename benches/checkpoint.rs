//! W7: saving and loading 500 MB, against the disk itself.
//!
//! `cargo bench --bench checkpoint` alternates a raw write + fsync of the same bytes with a save
//! (checksums, digest and fsyncs included), and a plain read with a verified load, and prints
//! medians and ratios. Then two networks are trained, with and without saving in the background: the
//! small one of the article, and one with a state of 100 MB. The directory is `FERROTAPE_BENCH_DIR`, or the target directory: give it one
//! on the disk to be measured. `-- disk` and `-- background` run one half only. Run as a test (`-- --test`)
//! it does everything once, with 1 MB.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferrotape::checkpoint::{
    BackgroundSaver, CheckpointFile, Checkpoints, NamedTensor, TrainingState,
};
use ferrotape::nn::{Layer, Module, Sequential};
use ferrotape::optim::Sgd;
use ferrotape::{Graph, Params, Tape, Tensor};

fn main() -> ferrotape::Result<()> {
    let test = std::env::args().any(|arg| arg == "--test");
    let (repeats, scale) = if test { (1, 500) } else { (7, 1) };
    let dir = std::env::var_os("FERROTAPE_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
        .join("bench-checkpoint");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the bench directory can be created");

    let wanted = |part: &str| {
        let parts: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
        parts.is_empty() || parts.iter().any(|wanted| wanted == part)
    };
    if wanted("disk") {
        save_and_load(&dir, &state(50, 2_500_000 / scale), repeats)?;
    }
    if wanted("background") {
        train_and_save(&dir, test)?;
    }
    fs::remove_dir_all(&dir).expect("the bench directory can be removed");
    Ok(())
}

/// Two networks, the smaller and the larger of those that people train with this.
fn train_and_save(dir: &Path, test: bool) -> ferrotape::Result<()> {
    let seconds = if test { 0.05 } else { 20.0 };
    let article = [
        Layer::conv2d(1, 6, 5),
        Layer::Relu,
        Layer::max_pool2d(2, 2),
        Layer::Flatten,
        Layer::linear(864, 120),
        Layer::Relu,
        Layer::linear(120, 84),
        Layer::Relu,
        Layer::linear(84, 10),
    ];
    in_background(dir, "the article's network", article, seconds)?;
    let wide = 4096 / if test { 64 } else { 1 };
    let wide = [
        Layer::Flatten,
        Layer::linear(784, wide),
        Layer::Relu,
        Layer::linear(wide, 9 * wide / 16),
        Layer::Relu,
        Layer::linear(9 * wide / 16, 10),
    ];
    in_background(dir, "a network of 100 MB", wide, seconds)
}

/// `count` tensors of `len` values that do not compress.
fn state(count: u32, len: u32) -> TrainingState<'static> {
    let tensor = |i: u32| {
        let value = |j: u32| (i.wrapping_mul(len) + j).wrapping_mul(0x9e37_79b9) as f32;
        let data: Vec<f32> = (0..len).map(value).collect();
        NamedTensor::new(format!("layer{i}.weight"), [len as usize], data)
    };
    TrainingState { params: (0..count).map(tensor).collect(), ..TrainingState::default() }
}

fn save_and_load(dir: &Path, state: &TrainingState<'_>, repeats: usize) -> ferrotape::Result<()> {
    let blob: Vec<u8> = state
        .params
        .iter()
        .flat_map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes()))
        .collect();
    let mb = blob.len() as f64 / 1e6;
    let run = dir.join("run");
    let raw = dir.join("raw");
    let mut times: [Vec<Duration>; 5] = Default::default();
    let mut digest = None;
    for _ in 0..repeats {
        let _ = fs::remove_file(&raw);
        times[0].push(timed(|| {
            let mut file = File::create(&raw).expect("create");
            blob.chunks(8 << 20).for_each(|part| file.write_all(part).expect("write"));
            file.sync_all().expect("sync");
        }));
        // A fresh directory, so that deleting an older file is not part of the time, as above.
        let _ = fs::remove_dir_all(&run);
        let mut checkpoints = Checkpoints::open(&run)?;
        let mut saved = None;
        times[1].push(timed(|| saved = Some(checkpoints.save(state, None))));
        let saved = saved.expect("just set")?;
        // Asserted before it counts: equal states, equal digests, equal content.
        assert_eq!(*digest.get_or_insert(saved.digest.clone()), saved.digest);

        times[2].push(timed(|| {
            let mut bytes = Vec::new();
            File::open(&raw).expect("open").read_to_end(&mut bytes).expect("read");
            black_box(&bytes);
        }));
        let mut loaded = None;
        times[3].push(timed(|| {
            loaded = Some(CheckpointFile::open(&saved.path).and_then(CheckpointFile::read_state));
        }));
        assert!(loaded.expect("just set")? == *state, "another state");
        times[4].push(timed(|| drop(black_box(CheckpointFile::open(&saved.path)))));
    }
    let [raw_write, save, raw_read, load, open] = times.map(median);
    let rate = |time: Duration| mb / 1e3 / time.as_secs_f64();
    println!("{mb:.0} MB, median of {repeats}");
    println!("  raw write + fsync    {raw_write:>9.1?}  {:.2} GB/s", rate(raw_write));
    println!(
        "  save                 {save:>9.1?}  {:.2} GB/s, {:.2} of raw",
        rate(save),
        raw_write.as_secs_f64() / save.as_secs_f64()
    );
    println!("  raw read             {raw_read:>9.1?}  {:.2} GB/s", rate(raw_read));
    println!("  load, all verified   {load:>9.1?}  {:.2} GB/s", rate(load));
    println!("  open, metadata only  {open:>9.1?}");
    Ok(())
}

/// Trains for some seconds, with and without routine saves, alternating.
fn in_background(
    dir: &Path,
    name: &str,
    layers: impl IntoIterator<Item = Layer>,
    seconds: f64,
) -> ferrotape::Result<()> {
    let mut params = Params::new(0);
    let model = Sequential::new(&mut params, layers);
    let mut sgd = Sgd::new(0.01).momentum(0.9);
    let mut tape = Tape::new();
    let images = Tensor::full(0.5, [64, 1, 28, 28]);
    let labels: Vec<usize> = (0..64).map(|i| i % 10).collect();
    let mut step = |params: &mut Params, sgd: &mut Sgd| {
        let mut g = Graph::new(&mut tape, params);
        let x = g.input(&images);
        let logits = model.forward(&mut g, x);
        let loss = g.cross_entropy(logits, &labels);
        let gradients = g.backward(loss);
        sgd.step(params, &gradients);
    };
    step(&mut params, &mut sgd); // from here on there is a velocity
    let mut rates = [0.0, 0.0];
    let mut saves = 0;
    let checkpoints = Checkpoints::open(dir.join(name))?;
    let mut saver = BackgroundSaver::new(checkpoints).interval(Duration::ZERO);
    saver.save(&snapshot(&params, &sgd), None)?; // the first one has to find its memory
    for phase in 0..20 {
        let (begun, mut steps) = (Instant::now(), 0);
        while begun.elapsed().as_secs_f64() < seconds / 20.0 {
            step(&mut params, &mut sgd);
            steps += 1;
            if phase % 2 == 1 {
                saver.poll()?;
                if saver.due() {
                    saver.save(&snapshot(&params, &sgd), None)?;
                    saves += 1;
                }
            }
        }
        rates[phase % 2] += f64::from(steps) / begun.elapsed().as_secs_f64();
    }
    saver.finish().1?;
    let mb = 4e-6 * (params.flat().len() + sgd.velocity().len()) as f64;
    println!(
        "saving {name} ({mb:.1} MB) in the background: {saves} saves in {:.0} s cost {:.1}% of the \
         steps",
        seconds / 2.0,
        100.0 * (1.0 - rates[1] / rates[0])
    );
    Ok(())
}

/// The weights and the velocity, lent.
fn snapshot<'a>(params: &'a Params, sgd: &'a Sgd) -> TrainingState<'a> {
    let tensors = |values: &'a [f32]| -> Vec<NamedTensor<'a>> {
        let tensor = |id| {
            let shape = params.shape(id).to_vec();
            NamedTensor::new(params.name(id), shape, &values[params.range(id)])
        };
        params.ids().map(tensor).collect()
    };
    let mut state = TrainingState { params: tensors(params.flat()), ..TrainingState::default() };
    state.optimizer.slots = tensors(sgd.velocity());
    state
}

fn timed(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
