//! Where a run is saved, at once or in the background, and what a full disk means.

use std::path::Path;
use std::time::Duration;

use crate::checkpoint::{BackgroundSaver, Checkpoints, Metric, Roles, Saved, TrainingState};
use crate::error::{Error, Result};

/// The run directory of a run in progress.
#[derive(Default)]
pub(super) enum Saver {
    #[default]
    Nowhere,
    AtOnce(Box<Checkpoints>),
    Background(Box<BackgroundSaver>),
}

/// What became of saving, unless it was an error that ends the run.
#[derive(Default)]
pub(super) struct Report {
    /// What the user should know: cleaning up failed, or the disk is full.
    pub(super) warnings: Vec<String>,
    /// Whether there was no room for the last state. What was saved before is untouched.
    pub(super) no_room: bool,
}

impl Saver {
    /// With an interval, saves in the background, and every so often between evaluations too.
    pub(super) fn new(checkpoints: Checkpoints, background: Option<Duration>) -> Self {
        match background {
            None => Saver::AtOnce(Box::new(checkpoints)),
            Some(interval) => {
                let saver = BackgroundSaver::new(checkpoints).interval(interval);
                Saver::Background(Box::new(saver))
            }
        }
    }

    /// Whether it is time for a save between evaluations.
    pub(super) fn due(&self) -> bool {
        matches!(self, Saver::Background(saver) if saver.due())
    }

    /// Saves a state, or begins to.
    ///
    /// # Errors
    /// That of this save or, in the background, of the one before.
    pub(super) fn save(
        &mut self,
        state: &TrainingState<'_>,
        metric: Option<Metric>,
    ) -> Result<Report> {
        match self {
            Saver::Nowhere => Ok(Report::default()),
            Saver::AtOnce(checkpoints) => report(checkpoints.save(state, metric).map(Some)),
            Saver::Background(saver) => {
                let before = report(saver.save(state, metric).map(|()| None))?;
                // If there was no room for the state before, there may be for this one.
                Ok(Report { no_room: false, ..before })
            }
        }
    }

    /// The checkpoint made last and what it is kept for, if saving is over by now.
    pub(super) fn last(&self) -> Option<(&Path, Roles)> {
        match self {
            Saver::AtOnce(checkpoints) => {
                let entry = checkpoints.entries().last()?;
                Some((&entry.path, *checkpoints.roles().last()?))
            }
            _ => None,
        }
    }

    /// What has become of a save in the background since this was last asked.
    ///
    /// # Errors
    /// That of the save.
    pub(super) fn poll(&mut self) -> Result<Report> {
        match self {
            Saver::Background(saver) => report(saver.poll()),
            _ => Ok(Report::default()),
        }
    }

    /// Waits for a save in the background and gives the run directory back.
    pub(super) fn finish(self) -> (Option<Checkpoints>, Result<Report>) {
        match self {
            Saver::Nowhere => (None, Ok(Report::default())),
            Saver::AtOnce(checkpoints) => (Some(*checkpoints), Ok(Report::default())),
            Saver::Background(saver) => {
                let (checkpoints, last) = saver.finish();
                (Some(checkpoints), report(last))
            }
        }
    }
}

/// A full disk is no reason to throw away what was trained: there may be room again at the next
/// save, and the checkpoints that exist are as good as they were.
fn report(saved: Result<Option<Saved>>) -> Result<Report> {
    match saved {
        Ok(saved) => {
            let warnings = saved.map(|saved| saved.warnings).unwrap_or_default();
            let warnings = warnings.iter().map(Error::to_string).collect();
            Ok(Report { warnings, no_room: false })
        }
        Err(error) if error.is_no_room() => {
            Ok(Report { warnings: vec![format!("not saved: {error}")], no_room: true })
        }
        Err(error) => Err(error),
    }
}
