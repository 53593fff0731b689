//! Optimizers and learning-rate schedules.

mod schedule;
mod sgd;

pub use schedule::{ConstantLr, LrSchedule, StepLr};
pub use sgd::Sgd;
