//! Ferrotape is a deep learning engine in pure Rust, written from scratch and small enough to read:
//! a tape that differentiates, kernels that use the whole CPU, a training loop that knows when to
//! stop, and checkpoints that cannot be lost.
//!
//! Start with [`tape`], which explains backpropagation and implements it; [`ops`] has one file per
//! operation; [`trainer`] is the training loop; [`monitor`] decides when to stop and [`checkpoint`]
//! keeps what was learnt; [`interop`] exchanges weights with PyTorch and NumPy. The arithmetic is
//! in the crate `ferrotape-kernels`.
//!
//! ```
//! use ferrotape::nn::{Linear, Module};
//! use ferrotape::optim::Sgd;
//! use ferrotape::{Graph, Params, Tape, Tensor};
//!
//! // Fit y = 2 x + 1.
//! let x = Tensor::from_vec(vec![-1.0, 0.0, 1.0, 2.0], [4, 1]);
//! let y = Tensor::from_vec(vec![-1.0, 1.0, 3.0, 5.0], [4, 1]);
//! let mut params = Params::new(0);
//! let line = Linear::new(&mut params, "line", 1, 1);
//! let (mut sgd, mut tape) = (Sgd::new(0.1).momentum(0.5), Tape::new());
//! for _ in 0..200 {
//!     let mut g = Graph::new(&mut tape, &params);
//!     let (x, y) = (g.input(&x), g.input(&y));
//!     let prediction = line.forward(&mut g, x);
//!     let loss = g.mse(prediction, y);
//!     let gradients = g.backward(loss);
//!     sgd.step(&mut params, &gradients);
//! }
//! assert!((params.get(line.weight)[0] - 2.0).abs() < 1e-3);
//! ```
//!
//! # Why it is built this way
//!
#![doc = include_str!("../DESIGN.md")]
#![forbid(unsafe_code)]

/// The program in the README is one.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod config;
mod crc;
pub mod data;
pub mod error;
pub mod files;
pub mod interop;
pub mod metrics;
pub mod monitor;
mod names;
pub mod nn;
pub mod numbers;
pub mod ops;
pub mod optim;
pub mod params;
pub mod report;
pub mod rng;
pub mod tape;
pub mod tensor;
pub mod trainer;

pub use error::{Error, Result};
pub use params::{Init, ParamId, Params};
pub use tape::{Gradients, Graph, Mode, Tape, Var};
pub use tensor::{Shape, Tensor};
