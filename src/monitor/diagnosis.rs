//! What the curves look like, whatever the rules decide, and what a beginner can do about it.

use std::fmt;

use serde::Serialize;

/// A description of the last evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Diagnosis {
    /// In one word.
    pub condition: Condition,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// Too few evaluations to say.
    Starting,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::Starting => "starting",
        })
    }
}
