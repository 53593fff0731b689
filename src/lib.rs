//! Ferrotape: a pure-Rust deep learning engine.
#![forbid(unsafe_code)]

pub mod data;
pub mod error;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod params;
pub mod metrics;
pub mod rng;
pub mod tape;
pub mod tensor;
pub mod monitor;

pub use error::{Error, Result};
pub use params::{Init, ParamId, Params};
pub use tape::{Gradients, Graph, Mode, Tape, Var};
pub use tensor::{Shape, Tensor};
