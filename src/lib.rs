//! Ferrotape: a pure-Rust deep learning engine.
#![forbid(unsafe_code)]

pub mod error;
pub mod monitor;

pub use error::{Error, Result};
