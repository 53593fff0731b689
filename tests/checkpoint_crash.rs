//! Power cuts and failing disks.
//!
//! A run saves, prunes, pins, is closed and opened again, on a simulated file system that records
//! the disk after every operation. From each of these moments, the states that a power cut could
//! leave are built (see `common/simfs.rs`) and a new process starts on each. What must hold:
//! nothing that was reported as saved is lost, nothing is mixed, and saving goes on.
//!
//! `FERROTAPE_CRASH_STATES` sets how many states are tried (a million by default). A long soak:
//!
//! ```text
//! FERROTAPE_CRASH_STATES=200000000 cargo test --release --test checkpoint_crash -- --nocapture
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, thread};

use common::simfs::{Disk, EINTR, EIO, ENOSPC, Fault, SimFs};
use common::{loss, noise, tiny_state};
use ferrotape::Result;
use ferrotape::checkpoint::vfs::{Lock, ReadFile, Vfs, WriteFile};
use ferrotape::checkpoint::{Checkpoints, Loaded};

mod common;

/// What the run has been told, at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Report {
    /// The step of the last state reported as saved.
    step: Option<u64>,
    /// The best metric reported as saved.
    best: Option<f64>,
    /// The step of a state reported as pinned.
    pinned: Option<u64>,
    /// The step last given to `save`, reported or not.
    tried: u64,
}

fn metric_of(step: u64) -> f64 {
    (noise(3, step) % 1000) as f64
}

fn open(vfs: Arc<dyn Vfs>) -> Result<Checkpoints> {
    Ok(Checkpoints::open_in(vfs, "run")?.keep_last(2).keep_best(1))
}

/// A state is a function of its step, so a mixture of two would not equal any.
fn assert_whole(loaded: &Loaded) -> u64 {
    let step = loaded.state.cursor.step;
    assert_eq!(loaded.state, tiny_state(step), "mixed state");
    assert_eq!(loaded.metric, loss(metric_of(step)), "mixed metric");
    step
}

/// A run of `saves` steps, opened again every seventh. Failing operations are lived with, as a
/// trainer would. `note` is told after each operation of the run what has been reported.
fn run(fs: &SimFs, vfs: &Arc<dyn Vfs>, saves: u64, note: &mut dyn FnMut(u64, Report)) -> Report {
    let mut report = Report::default();
    let mut step = 0;
    while step < saves {
        let Ok(mut checkpoints) = open(vfs.clone()) else { continue };
        if let Ok(Some(loaded)) = checkpoints.load_latest() {
            let found = assert_whole(&loaded);
            assert!(Some(found) >= report.step || !loaded.skipped.is_empty());
        }
        let _ = checkpoints.preflight(&tiny_state(0));
        for _ in 0..7 {
            step += 1;
            report.tried = step;
            note(fs.ops(), report);
            let metric = metric_of(step);
            if let Ok(saved) = checkpoints.save(&tiny_state(step), loss(metric)) {
                report.step = Some(step);
                report.best = Some(report.best.map_or(metric, |best| best.min(metric)));
                note(fs.ops(), report);
                if step == 4 && checkpoints.set_pinned(saved.generation, true).is_ok() {
                    report.pinned = Some(step);
                    note(fs.ops(), report);
                }
            }
        }
    }
    report
}

/// Starts a new process on what a crash left. `deep`: also saves again, and crashes again.
fn recover(fs: SimFs, report: Report, deep: Option<u64>) -> std::result::Result<(), String> {
    let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
    let mut checkpoints = open(vfs).map_err(|error| format!("cannot open: {error}"))?;
    let latest = checkpoints.load_latest().map_err(|error| format!("cannot load: {error}"))?;
    let step = latest.as_ref().map(assert_whole);
    if step < report.step || step > Some(report.tried) {
        return Err(format!("{step:?} recovered"));
    }
    if latest.is_some_and(|latest| !latest.skipped.is_empty()) {
        return Err("a published file is damaged".into());
    }
    let best = checkpoints.load_best().map_err(|error| format!("cannot load best: {error}"))?;
    let best = best.map(|loaded| metric_of(assert_whole(&loaded)));
    if report.best.is_some_and(|reported| best.is_none_or(|best| best > reported)) {
        return Err(format!("best {best:?} recovered"));
    }
    if let Some(pinned) = report.pinned {
        let there =
            checkpoints.entries().iter().any(|entry| entry.pinned && entry.cursor.step == pinned);
        if !there {
            return Err("the pinned checkpoint is gone".into());
        }
    }
    let Some(seed) = deep else { return Ok(()) };

    fs.record();
    let tried = report.tried + 1;
    checkpoints
        .save(&tiny_state(tried), loss(metric_of(tried)))
        .map_err(|error| format!("cannot go on: {error}"))?;
    let after = Report { step: Some(tried), tried, best: None, ..report };
    let during = Report { tried, ..report };
    drop(checkpoints);
    let mut disks = fs.recorded();
    let last = disks.pop().expect("saving does something");
    for (i, disk) in disks.iter().enumerate() {
        recover(disk.crash(&mut random(seed, i as u64)), during, None)?;
    }
    recover(last.crash(&mut random(seed, u64::MAX)), after, None)
}

/// Choices at random, but always the same ones.
fn random(seed: u64, index: u64) -> impl FnMut(u64) -> u64 {
    let stream = noise(seed, index);
    let mut i = 0;
    move |n| {
        i += 1;
        noise(stream, i) % n
    }
}

/// Choices that, for `index` from 0 to their number, are all of them.
fn enumerated(mut index: u64) -> impl FnMut(u64) -> u64 {
    move |n| {
        let choice = index % n;
        index /= n;
        choice
    }
}

/// Crashes everywhere, in about `budget` ways, and says how many states were tried and the first
/// that was wrong.
fn crash_everywhere(moments: &[(Disk, Report)], budget: u64) -> (u64, Option<String>) {
    // Moments with few possibilities are exhausted; the others share the rest of the budget.
    let states = |share| moments.iter().map(|(disk, _)| disk.choices().min(share)).sum::<u64>();
    let mut share = budget / moments.len() as u64;
    while states(share) < budget {
        share += share / 16 + 1;
    }

    let next = AtomicU64::new(0);
    let tried = AtomicU64::new(0);
    let work = || -> Option<String> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (disk, report) = moments.get(at as usize)?;
            let exhaustive = disk.choices() <= share;
            let count = disk.choices().min(share);
            for i in 0..count {
                let fs = if exhaustive {
                    disk.crash(&mut enumerated(i))
                } else {
                    disk.crash(&mut random(at, i))
                };
                let deep = (i % 256 == 1).then_some(i);
                if let Err(reason) = recover(fs, *report, deep) {
                    return Some(format!("{reason}; {report:?}; moment {at}, state {i}"));
                }
            }
            tried.fetch_add(count, Ordering::Relaxed);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let wrong = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).next()
    });
    (tried.into_inner(), wrong)
}

/// The disk after every operation of a run, with what had been reported by then.
fn moments(fs: &SimFs, vfs: &Arc<dyn Vfs>, saves: u64) -> Vec<(Disk, Report)> {
    fs.record();
    let mut reports = Vec::new();
    run(fs, vfs, saves, &mut |ops, report| reports.push((ops, report)));
    let mut report = Report::default();
    let mut reports = reports.into_iter().peekable();
    let disks = fs.recorded().into_iter().zip(0_u64..);
    disks
        .map(|(disk, op)| {
            // What is reported after `ops` operations holds from the last of them on.
            while let Some((_, later)) = reports.next_if(|&(ops, _)| ops <= op + 1) {
                // A step is tried from its first operation on, which comes after this one.
                report = later;
            }
            (disk, report)
        })
        .collect()
}

#[test]
fn no_power_cut_loses_or_mixes_what_was_saved() {
    let budget = std::env::var("FERROTAPE_CRASH_STATES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let fs = SimFs::default();
    let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
    let moments = moments(&fs, &vfs, 28);
    let (tried, wrong) = crash_everywhere(&moments, budget);
    println!("{tried} crash states of {} moments, 0 lost, 0 mixed expected", moments.len());
    assert_eq!(wrong, None);
    assert!(tried >= budget, "only {tried} states");
}

/// A file system that leaves out one kind of fsync: the harness must notice.
struct Lazy {
    fs: SimFs,
    file: bool,
    dir: bool,
}

impl Vfs for Lazy {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.fs.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.fs.open(path)
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = self.fs.create_new(path)?;
        Ok(if self.file { Box::new(LazyFile(file)) } else { file })
    }
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.publish(from, to)
    }
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.replace(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.dir { Ok(()) } else { self.fs.sync_dir(dir) }
    }
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.fs.try_lock(path)
    }
}

struct LazyFile(Box<dyn WriteFile>);

impl io::Write for LazyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl io::Seek for LazyFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl WriteFile for LazyFile {
    fn sync_all(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_commit_without_one_of_its_fsyncs_is_caught() {
    for (file, dir) in [(true, false), (false, true)] {
        let fs = SimFs::default();
        let vfs: Arc<dyn Vfs> = Arc::new(Lazy { fs: fs.clone(), file, dir });
        let moments = moments(&fs, &vfs, 7);
        let (_, wrong) = crash_everywhere(&moments, 20_000);
        assert!(wrong.is_some(), "file {file}, dir {dir}: not noticed");
    }
}

/// A state of many chunks: whichever write fails, the thread that prepares the next ones ends.
#[test]
fn a_write_that_fails_in_the_middle_of_many_ends_the_save() {
    let state = common::state(3);
    let fs = SimFs::default();
    let mut checkpoints = open(Arc::new(fs.clone())).unwrap();
    let before = fs.ops();
    checkpoints.save(&state, None).unwrap();
    for op in before..fs.ops() {
        for _ in 0..20 {
            let fs = SimFs::default();
            let mut checkpoints = open(Arc::new(fs.clone())).unwrap();
            fs.fail(op, 1, EIO);
            let _ = checkpoints.save(&state, None);
            fs.fail(0, 0, EIO);
            checkpoints.save(&state, None).unwrap();
        }
    }
}

#[test]
fn a_fault_at_any_operation_costs_nothing_that_was_saved() {
    let fs = SimFs::default();
    let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
    run(&fs, &vfs, 14, &mut |_, _| {});
    let ops = fs.ops();
    let mut refused = 0;
    for fault in [ENOSPC, EIO, EINTR, Fault::Short] {
        for first in 0..ops {
            for count in [1, 40] {
                let fs = SimFs::default();
                fs.fail(first, count, fault);
                let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
                let report = run(&fs, &vfs, 14, &mut |_, _| {});
                refused += u64::from(report.step != Some(14));
                if fault == Fault::Short {
                    assert_eq!(report.step, Some(14), "short writes are simply continued");
                }
                fs.fail(0, 0, fault);
                let disk = fs.disk();
                for kept in 0..2 {
                    let crashed = disk.crash(&mut |_| kept);
                    recover(crashed, report, Some(first)).unwrap_or_else(|reason| {
                        panic!("{reason}; {report:?}; {fault:?} x {count} at {first}")
                    });
                }
                recover(fs, report, None).unwrap();
            }
        }
    }
    println!("{} faulty runs of {ops} operations each; {refused} ended in a refusal", 8 * ops);
    assert!(refused > 0, "no fault ever hit a save");
}
