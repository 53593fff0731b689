//! Saving while training goes on.
//!
//! ```text
//! training   step step [snapshot] step step step step ... step [snapshot]
//! writing                         hash, write, fsync, publish            hash, write, ...
//! ```
//!
//! At a step boundary the state is copied into memory (a few milliseconds for 100 MB, into
//! buffers that are reused), and another thread saves the copy. There is one copy, so at most the
//! state's size in extra memory: while it is being written, a routine save is not due, and one
//! that must happen (after an evaluation) waits for it. Errors are not lost: they are returned
//! by whatever is called next, and at the end.
//!
//! How often routine saves are due adapts to what they cost: after a save that took `t` seconds,
//! the next one is due `t / overhead` seconds later. Even if the writing thread slowed training
//! down by all of its time, that bounds the loss to the fraction asked for.

use std::borrow::Cow;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::manager::{Checkpoints, Saved};
use super::state::{Metric, NamedTensor, TrainingState};
use crate::error::{Error, Result};

/// Owns a run directory and saves to it on a thread of its own.
#[derive(Debug)]
pub struct BackgroundSaver {
    /// `None` once no more will come.
    jobs: Option<Sender<Job>>,
    results: Receiver<Finished>,
    /// `None` once it was waited for.
    thread: Option<JoinHandle<Checkpoints>>,
    overhead: f64,
    interval: Duration,
    /// When the save in flight, or the last one, was begun, and its snapshot's cost.
    begun: Instant,
    snapshot_cost: Duration,
    in_flight: bool,
    /// The copy, when it is not being written.
    spare: Option<TrainingState<'static>>,
    /// The time from one begin to the next that keeps the promised overhead.
    pause: Duration,
    last: Option<Saved>,
}

type Job = (TrainingState<'static>, Option<Metric>);

struct Finished {
    result: Result<Saved>,
    cost: Duration,
    state: TrainingState<'static>,
}

impl BackgroundSaver {
    /// Takes over a run directory. Routine saves are due at most every 30 seconds and cost at
    /// most 3% of the time.
    pub fn new(mut checkpoints: Checkpoints) -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (finished, results) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            for (state, metric) in todo {
                let begun = Instant::now();
                let result = checkpoints.save(&state, metric);
                // If nobody listens any more, the saver is being dropped; what is saved is saved.
                let _ = finished.send(Finished { result, cost: begun.elapsed(), state });
            }
            checkpoints
        });
        BackgroundSaver {
            jobs: Some(jobs),
            results,
            thread: Some(thread),
            overhead: 0.03,
            interval: Duration::from_secs(30),
            begun: Instant::now(),
            snapshot_cost: Duration::ZERO,
            in_flight: false,
            spare: None,
            pause: Duration::ZERO,
            last: None,
        }
    }

    /// Routine saves take at most this fraction of the time, `0 < fraction <= 1`.
    ///
    /// # Panics
    /// If `fraction` is out of range.
    #[track_caller]
    pub fn overhead(mut self, fraction: f64) -> Self {
        assert!(fraction > 0.0 && fraction <= 1.0, "overhead: {fraction}, expected 0 < x <= 1");
        self.overhead = fraction;
        self
    }

    /// Routine saves are at least this far apart.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Whether a routine save is due: nothing is being written, and the last save is long enough
    /// ago. Costs next to nothing; ask at every step.
    pub fn due(&self) -> bool {
        !self.in_flight && self.begun.elapsed() >= self.pause.max(self.interval)
    }

    /// Copies the state and begins to save it. If another save is still being written, waits for
    /// it first; ask [`BackgroundSaver::due`] before a save that is not worth waiting for.
    ///
    /// # Errors
    /// The error of the save before, if it failed. The new one is begun all the same.
    pub fn save(&mut self, state: &TrainingState<'_>, metric: Option<Metric>) -> Result<()> {
        let before = self.wait();
        self.begun = Instant::now();
        let copy = snapshot(state, self.spare.take());
        self.snapshot_cost = self.begun.elapsed();
        self.in_flight = true;
        match &self.jobs {
            Some(jobs) if jobs.send((copy, metric)).is_ok() => before,
            _ => Err(self.panicked()),
        }
    }

    /// What the last save has become, if it has finished since this was last asked. Ask at every
    /// step.
    ///
    /// # Errors
    /// The error of the save, if it failed. Older checkpoints are untouched, and the next save
    /// writes a new file.
    pub fn poll(&mut self) -> Result<Option<Saved>> {
        if self.in_flight {
            match self.results.try_recv() {
                Ok(finished) => self.note(finished)?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(self.panicked()),
            }
        }
        Ok(self.last.take())
    }

    /// Waits for the save in flight and gives the run directory back, with the outcome of the
    /// last save that [`BackgroundSaver::poll`] has not reported.
    ///
    /// # Panics
    /// Passes on a panic of the thread that saves.
    pub fn finish(mut self) -> (Checkpoints, Result<Option<Saved>>) {
        let outcome = self.wait();
        match self.join() {
            Some(Ok(checkpoints)) => (checkpoints, outcome.map(|()| self.last.take())),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("only this and drop wait for the thread"),
        }
    }

    fn join(&mut self) -> Option<std::thread::Result<Checkpoints>> {
        self.jobs = None;
        self.thread.take().map(JoinHandle::join)
    }

    fn wait(&mut self) -> Result<()> {
        if !self.in_flight {
            return Ok(());
        }
        match self.results.recv() {
            Ok(finished) => self.note(finished),
            Err(_) => Err(self.panicked()),
        }
    }

    fn panicked(&mut self) -> Error {
        self.in_flight = false;
        Error::config("background saver", "its thread has panicked; nothing more is saved")
    }

    fn note(&mut self, finished: Finished) -> Result<()> {
        self.in_flight = false;
        self.spare = Some(finished.state);
        self.pause = (self.snapshot_cost + finished.cost).div_f64(self.overhead);
        self.last = Some(finished.result?);
        Ok(())
    }
}

/// Waits for the save in flight, so that the run directory is free afterwards, also while a panic
/// unwinds.
impl Drop for BackgroundSaver {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// A copy of the state, in the memory of an older copy where that fits.
fn snapshot(
    state: &TrainingState<'_>,
    old: Option<TrainingState<'static>>,
) -> TrainingState<'static> {
    let Some(mut old) = old else { return state.to_owned_state() };
    let fill = |new: &[NamedTensor<'_>], old: &mut Vec<NamedTensor<'static>>| {
        old.resize_with(new.len(), || NamedTensor::new("", [0], Vec::new()));
        for (new, old) in new.iter().zip(old) {
            old.name.clone_from(&new.name);
            old.shape.clone_from(&new.shape);
            match &mut old.data {
                Cow::Owned(data) if data.len() == new.data.len() => {
                    data.copy_from_slice(&new.data);
                }
                data => *data = Cow::Owned(new.data.to_vec()),
            }
        }
    };
    fill(&state.params, &mut old.params);
    fill(&state.buffers, &mut old.buffers);
    fill(&state.optimizer.slots, &mut old.optimizer.slots);
    old.config.clone_from(&state.config);
    old.optimizer.kind.clone_from(&state.optimizer.kind);
    old.optimizer.hyper.clone_from(&state.optimizer.hyper);
    old.schedule.clone_from(&state.schedule);
    old.cursor = state.cursor;
    old.monitor.clone_from(&state.monitor);
    old.history.clone_from(&state.history);
    old.clock.clone_from(&state.clock);
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_pays_for_copying_as_well_as_for_writing() {
        let dir = std::env::temp_dir().join(format!("ferrotape-saver-{}", std::process::id()));
        let mut saver = BackgroundSaver::new(Checkpoints::open(&dir).unwrap()).overhead(0.1);
        saver.snapshot_cost = Duration::from_secs(1);
        let state = TrainingState::default();
        let result = Err(Error::config("disk", "full"));
        let _ = saver.note(Finished { result, cost: Duration::from_secs(2), state });
        assert_eq!(saver.pause, Duration::from_secs(30));
        drop(saver);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
