//! What happens between the gradients and the next step: clipping, the optimizer, and the
//! learning-rate schedules that set its pace.

mod clip;
mod schedule;
mod sgd;

pub use clip::{clip_grad_norm, clip_grad_value, grad_norm};
pub use schedule::{
    ConstantLr, CosineAnnealing, ExponentialLr, LinearWarmUp, LrSchedule, MultiStepLr, OneCycle,
    PerStep, Progress, ReduceOnPlateau, StepLr,
};
pub use sgd::Sgd;
