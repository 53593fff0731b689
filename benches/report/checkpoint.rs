//! W7: saving and loading 500 MB, against the disk itself, and what saving in the background costs.
//!
//! ```text
//! raw-write    the same bytes written and fsynced, in turn with
//! save+fsync   a save: checksums, digest, all that makes it durable
//! raw-read     the same bytes read into fresh memory, in turn with
//! load-warm    a load that verifies every byte, and
//! open         all but the tensors
//! trainstep+save   training with routine saves in the background, in turn with training without
//! ```
//!
//! The directory is `FERROTAPE_BENCH_DIR`, or Cargo's directory for tests: give it one on the disk
//! to be measured. All rows say one thread, as the peers' do, but use as many as there are. Of the
//! peers' loads, those that map the file and touch nothing have read nothing yet.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferrotape::checkpoint::{
    BackgroundSaver, CheckpointFile, Checkpoints, NamedTensor, TrainingState,
};

use super::Report;
use super::rows::{Row, Timing};
use super::workloads::Network;

const SIZE: &str = "500MB";
const OPS: [&str; 5] = ["raw-write", "save+fsync", "raw-read", "load-warm", "open"];

/// The small network, and one whose weights and velocity are 100 MB.
const NETWORKS: [(&str, usize); 2] = [("seednet", 32), ("wide", 64)];

/// Names and operations of all rows.
pub(super) fn rows() -> impl Iterator<Item = (String, &'static str)> {
    let networks =
        NETWORKS.iter().map(|(net, batch)| (format!("{net}-b{batch}"), "trainstep+save"));
    OPS.iter().map(|op| (SIZE.to_owned(), *op)).chain(networks)
}

impl Report {
    pub(super) fn w7(&self) {
        let dir = std::env::var_os("FERROTAPE_BENCH_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
            .join("bench-checkpoint");
        let _ = fs::remove_dir_all(&dir);
        if OPS.iter().any(|op| self.wanted("W7", SIZE, op)) {
            fs::create_dir_all(&dir).expect("the bench directory can be created");
            self.save_and_load(&dir);
        }
        for (net, batch) in NETWORKS {
            let name = format!("{net}-b{batch}");
            if self.wanted("W7", &name, "trainstep+save") {
                Network::check(net, batch);
                self.in_background(&dir.join(&name), &name, Network::new(net, batch));
            }
        }
        let _ = fs::remove_dir_all(&dir);
    }

    fn save_and_load(&self, dir: &Path) {
        let (repeats, scale) = if self.options.test { (1, 500) } else { (7, 1) };
        let state = state(50, 2_500_000 / scale);
        let bytes: Vec<u8> = state
            .params
            .iter()
            .flat_map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes()))
            .collect();
        let (raw, run) = (dir.join("raw"), dir.join("run"));
        let load = |path: &Path| CheckpointFile::open(path).and_then(CheckpointFile::read_state);

        let [mut raw_write, mut save] = [Vec::new(), Vec::new()];
        let mut checkpoint = PathBuf::new();
        for _ in 0..repeats {
            // A new file and a new directory: deleting the old ones is not part of the time.
            let _ = fs::remove_file(&raw);
            raw_write.push(seconds(|| {
                let mut file = File::create(&raw).expect("create");
                bytes.chunks(8 << 20).for_each(|part| file.write_all(part).expect("write"));
                file.sync_all().expect("sync");
            }));
            let _ = fs::remove_dir_all(&run);
            let mut checkpoints = Checkpoints::open(&run).expect("a new directory");
            let mut saved = None;
            save.push(seconds(|| saved = Some(checkpoints.save(&state, None))));
            checkpoint = saved.expect("just set").expect("there is room").path;
        }

        // Asserted before a load is timed, and before a save counts. It also makes the memory warm.
        assert!(load(&checkpoint).expect("just saved") == state, "another state was loaded");
        let [mut raw_read, mut load_warm, mut open] = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..repeats {
            raw_read.push(seconds(|| {
                let mut bytes = Vec::new();
                File::open(&raw).expect("open").read_to_end(&mut bytes).expect("read");
                black_box(&bytes);
            }));
            let mut loaded = None;
            load_warm.push(seconds(|| loaded = Some(load(&checkpoint).expect("it was verified"))));
            drop(loaded);
            open.push(seconds(|| drop(black_box(CheckpointFile::open(&checkpoint)))));
        }

        let write_ratio = paired(&raw_write, &save);
        let read_ratio = paired(&raw_read, &load_warm);
        let row = |op: &str, times| {
            let row = Row::new("W7", SIZE, op, 1, Timing::new(times));
            if op == "open" { row } else { row.bytes(bytes.len()) }
        };
        let [raw_write, raw_read] = [row("raw-write", raw_write), row("raw-read", raw_read)];
        let save = row("save+fsync", save).beside("raw", write_ratio);
        let load_warm = row("load-warm", load_warm).beside("raw", read_ratio);
        let rows = [raw_write, save, raw_read, load_warm, row("open", open)];
        rows.into_iter()
            .filter(|row| self.wanted("W7", SIZE, &row.op))
            .for_each(|row| self.print(row));
    }

    /// Trains in turn from a save until the next one is due, which is all that a save can cost, and
    /// for as many steps without one.
    fn in_background(&self, dir: &Path, name: &str, mut network: Network) {
        let (time, pairs) = if self.options.test { (0.0, 1) } else { (10.0, 7) };
        network.train_step(); // from here on there is a velocity
        let checkpoints = Checkpoints::open(dir).expect("a new directory");
        let mut saver = BackgroundSaver::new(checkpoints).interval(Duration::ZERO);
        if self.options.test {
            saver = saver.overhead(1.0); // nobody waits for a pause that is not measured
        }
        let [mut plain, mut saving] = [Vec::new(), Vec::new()];
        // The first one has to find its memory, and finds out what a save costs.
        let mut cycle = |saver: &mut BackgroundSaver| {
            let (begun, mut steps) = (Instant::now(), 0.0);
            saver.save(&network.state(), None).expect("the thread is there");
            while !saver.due() {
                network.train_step();
                saver.poll().expect("there is room");
                steps += 1.0;
            }
            let saving = begun.elapsed().as_secs_f64() / steps;
            let plain =
                seconds(|| (0..steps as u64).for_each(|_| _ = network.train_step())) / steps;
            (saving, plain)
        };
        cycle(&mut saver);
        let begun = Instant::now();
        while plain.len() < pairs || begun.elapsed().as_secs_f64() < time {
            let (with, without) = cycle(&mut saver);
            saving.push(with);
            plain.push(without);
        }
        saver.finish().1.expect("there is room");
        let ratio = paired(&plain, &saving);
        let row = Row::new("W7", name, "trainstep+save", 1, Timing::new(saving));
        self.print(row.flops(network.step_flops() as f64).beside("plain", ratio));
    }
}

/// The median of the times of one over those of the other, taken in turn.
fn paired(others: &[f64], own: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = others.iter().zip(own).map(|(other, own)| other / own).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
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

fn seconds(run: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    run();
    begun.elapsed().as_secs_f64()
}
