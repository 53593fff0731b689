//! Models: the [`Module`] trait, layers, and [`Sequential`] chains of them.
//!
//! A layer holds no weights, only the [`ParamId`](crate::ParamId)s of its weights in a
//! [`Params`](crate::Params) store, so a model is cheap to clone and to share between threads.

mod layers;
mod module;
mod sequential;
mod summary;

pub use layers::{BatchNorm2d, Conv2d, Dropout, Linear};
pub use module::Module;
#[cfg(feature = "cli")]
pub(crate) use sequential::MAX_SIDE;
pub use sequential::{Layer, Sequential};
pub use summary::{Summary, SummaryRow};
