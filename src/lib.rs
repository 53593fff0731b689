//! Ferrotape: a pure-Rust deep learning engine.
#![forbid(unsafe_code)]

pub mod data;
pub mod error;
pub mod metrics;
pub mod rng;

pub use error::{Error, Result};
