//! Ferrotape: a pure-Rust deep learning engine.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod error;

pub use error::{Error, Result};
