//! Layers with weights, and dropout.

use crate::ops::{BatchNormOptions, Conv2dOptions};
use crate::params::{Init, ParamId, Params};
use crate::tape::{Graph, Var};

use super::Module;

/// PyTorch's default for linear and convolutional layers: uniform with bound `1 / sqrt(fan_in)`.
fn default_init(fan_in: usize) -> Init {
    Init::Uniform { bound: 1.0 / (fan_in.max(1) as f32).sqrt() }
}

/// Fully connected layer: `y = x w^T + b` with `w` `[out, in]`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: ParamId,
    /// `[out]`.
    pub bias: Option<ParamId>,
}

impl Linear {
    /// A layer from `inputs` to `outputs` features with parameters `{name}.weight` and
    /// `{name}.bias`, initialised as PyTorch does.
    pub fn new(params: &mut Params, name: &str, inputs: usize, outputs: usize) -> Self {
        let mut layer = Linear::without_bias(params, name, inputs, outputs, default_init(inputs));
        layer.bias = Some(params.add(format!("{name}.bias"), [outputs], default_init(inputs)));
        layer
    }

    /// A layer with a weight initialised by `init`, and no bias.
    pub fn without_bias(
        params: &mut Params,
        name: &str,
        inputs: usize,
        outputs: usize,
        init: Init,
    ) -> Self {
        Linear { weight: params.add(format!("{name}.weight"), [outputs, inputs], init), bias: None }
    }
}

impl Module for Linear {
    #[track_caller]
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        let weight = g.param(self.weight);
        let bias = self.bias.map(|bias| g.param(bias));
        g.linear(x, weight, bias)
    }
}

/// Two-dimensional convolution with bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kernel, kernel]`.
    pub weight: ParamId,
    /// `[out]`.
    pub bias: Option<ParamId>,
    /// Stride, padding, dilation and groups.
    pub options: Conv2dOptions,
}

impl Conv2d {
    /// A `kernel` x `kernel` convolution from `inputs` to `outputs` channels, stride 1, no
    /// padding, with parameters `{name}.weight` and `{name}.bias` initialised as PyTorch does.
    pub fn new(
        params: &mut Params,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
    ) -> Self {
        Conv2d::with_options(params, name, inputs, outputs, kernel, Conv2dOptions::default())
    }

    /// As [`Conv2d::new`] with stride, padding, dilation and groups.
    ///
    /// # Panics
    /// If `groups` is zero or does not divide `inputs`.
    #[track_caller]
    pub fn with_options(
        params: &mut Params,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        options: Conv2dOptions,
    ) -> Self {
        let groups = options.groups;
        assert!(
            groups > 0 && inputs.is_multiple_of(groups),
            "conv2d {name:?}: {groups} groups do not divide {inputs} input channels"
        );
        let fan_in = inputs / groups * kernel * kernel;
        let shape = [outputs, inputs / groups, kernel, kernel];
        Conv2d {
            weight: params.add(format!("{name}.weight"), shape, default_init(fan_in)),
            bias: Some(params.add(format!("{name}.bias"), [outputs], default_init(fan_in))),
            options,
        }
    }
}

impl Module for Conv2d {
    #[track_caller]
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        let weight = g.param(self.weight);
        let bias = self.bias.map(|bias| g.param(bias));
        g.conv2d(x, weight, bias, self.options)
    }
}

/// Brings each channel to mean 0 and variance 1, then scales and shifts it by learnt amounts: see
/// [`crate::ops::BatchNormOptions`].
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    /// The scale, `[c]`.
    pub weight: ParamId,
    /// The shift, `[c]`.
    pub bias: ParamId,
    /// The buffers of the running statistics, momentum and epsilon.
    pub options: BatchNormOptions,
}

impl BatchNorm2d {
    /// For inputs `[n, channels, h, w]` (any number of dimensions after the channels), with
    /// parameters `{name}.weight` and `{name}.bias` and buffers `{name}.running_mean` and
    /// `{name}.running_var`, as PyTorch has them.
    pub fn new(params: &mut Params, name: &str, channels: usize) -> Self {
        let weight = params.add(format!("{name}.weight"), [channels], Init::Ones);
        let bias = params.add(format!("{name}.bias"), [channels], Init::Zeros);
        let running = [("running_mean", Init::Zeros), ("running_var", Init::Ones)]
            .map(|(stat, init)| params.add_buffer(format!("{name}.{stat}"), [channels], init));
        let options = BatchNormOptions { running: Some(running), ..BatchNormOptions::default() };
        BatchNorm2d { weight, bias, options }
    }
}

impl Module for BatchNorm2d {
    #[track_caller]
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        let (weight, bias) = (g.param(self.weight), g.param(self.bias));
        g.batch_norm(x, weight, bias, self.options)
    }
}

/// Zeroes elements with probability `p` in training, scaling the rest by `1 / (1 - p)`; the
/// identity in evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The probability of zeroing an element, in `[0, 1)`.
    pub p: f32,
}

impl Module for Dropout {
    #[track_caller]
    fn forward(&self, g: &mut Graph, x: Var) -> Var {
        g.dropout(x, self.p)
    }
}
