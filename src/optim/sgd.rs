//! Stochastic gradient descent with momentum.
//!
//! PyTorch's form, with gradient `g`, weight decay `wd`, momentum `mu`, dampening `d`, velocity
//! `v` and learning rate `lr`:
//!
//! ```text
//! g = g + wd * w
//! v = g                        in the first step
//! v = mu * v + (1 - d) * g     afterwards
//! w = w - lr * v               or  w - lr * (g + mu * v)  with Nesterov
//! ```
//!
//! Since `lr` multiplies the velocity only when it is applied, changing it takes effect at once.
//! (Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013,
//! put it inside the velocity instead.)

use ferrotape_kernels::sgd::{SgdStep, step};

use crate::params::Params;
use crate::tape::Gradients;

/// SGD with optional momentum, dampening, weight decay and Nesterov's lookahead.
///
/// ```
/// use ferrotape::optim::Sgd;
/// let sgd = Sgd::new(0.05).momentum(0.9).weight_decay(1e-4).nesterov(true);
/// assert_eq!(sgd.lr, 0.05);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate. A schedule writes it.
    pub lr: f32,
    momentum: f32,
    dampening: f32,
    weight_decay: f32,
    nesterov: bool,
    /// In the layout of [`Params::flat`]; empty before the first step.
    velocity: Vec<f32>,
}

impl Sgd {
    /// Plain gradient descent with learning rate `lr`.
    pub fn new(lr: f32) -> Self {
        Sgd {
            lr,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            velocity: Vec::new(),
        }
    }

    /// Sets the share of the velocity that survives a step; 0.9 is customary.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Sets how much a gradient's entry into the velocity is dampened.
    pub fn dampening(mut self, dampening: f32) -> Self {
        self.dampening = dampening;
        self
    }

    /// Sets the strength of the pull of every weight towards zero.
    pub fn weight_decay(mut self, weight_decay: f32) -> Self {
        self.weight_decay = weight_decay;
        self
    }

    /// Looks ahead along the velocity (Nesterov).
    pub fn nesterov(mut self, nesterov: bool) -> Self {
        self.nesterov = nesterov;
        self
    }

    /// Updates all parameters in one pass over the flat arrays, and the model's buffers.
    ///
    /// # Panics
    /// If the gradients or the velocity belong to another parameter store.
    #[track_caller]
    pub fn step(&mut self, params: &mut Params, gradients: &Gradients<'_>) {
        let first = self.velocity.is_empty();
        if first && self.has_momentum() {
            self.velocity.resize(params.flat().len(), 0.0);
        }
        let settings = SgdStep {
            lr: self.lr,
            momentum: self.momentum,
            dampening: self.dampening,
            weight_decay: self.weight_decay,
            nesterov: self.nesterov,
            first,
        };
        step(params.flat_mut(), &mut self.velocity, gradients.flat(), &settings);
        gradients.update_buffers(params);
    }

    /// The settings by name, for checkpoints and reports.
    pub fn hyper(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("lr", f64::from(self.lr)),
            ("momentum", f64::from(self.momentum)),
            ("dampening", f64::from(self.dampening)),
            ("weight_decay", f64::from(self.weight_decay)),
            ("nesterov", f64::from(u8::from(self.nesterov))),
        ]
    }

    /// Whether there is a velocity that outlives a step.
    pub fn has_momentum(&self) -> bool {
        self.momentum != 0.0
    }

    /// The velocity in the layout of [`Params::flat`]; empty before the first step and without
    /// momentum.
    pub fn velocity(&self) -> &[f32] {
        &self.velocity
    }

    /// Puts back a velocity taken from [`Sgd::velocity`].
    pub fn set_velocity(&mut self, velocity: Vec<f32>) {
        self.velocity = velocity;
    }
}
