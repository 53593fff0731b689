//! W7: saving and loading 500 MB, against the disk itself.
//!
//! `cargo bench --bench checkpoint` alternates a raw write + fsync of the same bytes with a save
//! (checksums, digest and fsyncs included), and a plain read with a verified load, and prints
//! medians and ratios. Then it trains nothing, but computes, with and without saving 100 MB in
//! the background. The directory is `FERROTAPE_BENCH_DIR`, or the target directory: give it one
//! on the disk to be measured. Run as a test (`-- --test`) it does everything once, with 1 MB.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferrotape::checkpoint::{
    BackgroundSaver, CheckpointFile, Checkpoints, NamedTensor, TrainingState,
};

fn main() -> ferrotape::Result<()> {
    let test = std::env::args().any(|arg| arg == "--test");
    let (repeats, scale) = if test { (1, 500) } else { (7, 1) };
    let dir = std::env::var_os("FERROTAPE_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
        .join("bench-checkpoint");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("the bench directory can be created");

    save_and_load(&dir, &state(50, 2_500_000 / scale), repeats)?;
    in_background(&dir, &state(10, 2_500_000 / scale), if test { 0.05 } else { 20.0 })?;
    fs::remove_dir_all(&dir).expect("the bench directory can be removed");
    Ok(())
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

/// Steps of computing for some seconds, with and without routine saves, alternating.
fn in_background(dir: &Path, state: &TrainingState<'_>, seconds: f64) -> ferrotape::Result<()> {
    let mut data = vec![1.0_f32; 1 << 16];
    let mut step = || {
        for _ in 0..100 {
            data.iter_mut().for_each(|x| *x = x.mul_add(0.999, 0.001));
            black_box(&data);
        }
    };
    let mut rates = [0.0, 0.0];
    let mut saves = 0;
    let checkpoints = Checkpoints::open(dir.join("background"))?;
    let mut saver = BackgroundSaver::new(checkpoints).interval(Duration::ZERO);
    saver.save(state, None)?; // the first snapshot has to find its memory
    for phase in 0..4 {
        let (begun, mut steps) = (Instant::now(), 0);
        while begun.elapsed().as_secs_f64() < seconds / 4.0 {
            step();
            steps += 1;
            if phase % 2 == 1 {
                saver.poll()?;
                if saver.due() {
                    saver.save(state, None)?;
                    saves += 1;
                }
            }
        }
        rates[phase % 2] += f64::from(steps) / begun.elapsed().as_secs_f64();
    }
    saver.finish().1?;
    let mb = state.params.iter().map(|tensor| 4 * tensor.data.len()).sum::<usize>() as f64 / 1e6;
    println!(
        "background saving of {mb:.0} MB: {saves} saves in {:.0} s cost {:.1}% of the steps",
        seconds / 2.0,
        100.0 * (1.0 - rates[1] / rates[0])
    );
    Ok(())
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
