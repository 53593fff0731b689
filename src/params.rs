//! The model's weights: named tensors in one flat array, and how they are initialised.
//!
//! Layers own no weights; they hold [`ParamId`]s into a [`Params`] store. One flat array means
//! that the optimizer updates the whole model in a single pass, that gradients have the same
//! layout, and that saving a model is writing one slice with a table of names.
//!
//! A second flat array holds the *buffers*: tensors that belong to the model and are saved with
//! it, but that no gradient reaches and no optimizer moves, such as the running statistics of
//! batch normalisation. Each has a name and a [`ParamId`] like a parameter. They change when a
//! step is applied ([`Gradients::update_buffers`](crate::Gradients::update_buffers)), never while
//! a [`Graph`](crate::Graph) reads them.

use ndarray::{ArrayViewD, IxDyn};

use crate::rng::{Purpose, Stream};
use crate::tensor::{Shape, Tensor};

/// Every tensor begins at a multiple of this many floats (one cache line).
const ALIGN: usize = 16;

/// Names one parameter or buffer of a [`Params`] store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ParamId(u32);

impl ParamId {
    /// The position of the tensor in order of creation.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a new parameter gets its first values.
///
/// `fan_in` is the number of inputs that one output sums over: the product of all dimensions but
/// the first; `fan_out` is the first dimension times the receptive field (the product of all but
/// the first two). These are PyTorch's conventions for weights of shape `[out, in, ...]`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// All elements zero.
    Zeros,
    /// All elements one.
    Ones,
    /// All elements the given value.
    Constant(f32),
    /// Uniform on `[-bound, bound)`.
    Uniform {
        /// The largest magnitude.
        bound: f32,
    },
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        std: f32,
    },
    /// Uniform on `[-b, b)` with `b = sqrt(6 / fan_in)`: keeps the variance through ReLU layers
    /// (He et al., "Delving Deep into Rectifiers", 2015).
    KaimingUniform,
    /// Normal with standard deviation `sqrt(2 / fan_in)`.
    KaimingNormal,
    /// Uniform on `[-b, b)` with `b = sqrt(6 / (fan_in + fan_out))`: keeps the variance of both
    /// activations and gradients through linear layers (Glorot & Bengio, 2010).
    XavierUniform,
    /// Normal with standard deviation `sqrt(2 / (fan_in + fan_out))`.
    XavierNormal,
}

impl Init {
    /// Fills `values` of a parameter of the given shape from `stream`.
    fn fill(self, values: &mut [f32], shape: &Shape, stream: &mut Stream) {
        let fan_in = shape.iter().skip(1).product::<usize>().max(1) as f32;
        let receptive_field = shape.iter().skip(2).product::<usize>();
        let fan_out = (shape.first().copied().unwrap_or(1) * receptive_field).max(1) as f32;
        let (uniform, scale) = match self {
            Init::Zeros => return values.fill(0.0),
            Init::Ones => return values.fill(1.0),
            Init::Constant(value) => return values.fill(value),
            Init::Uniform { bound } => (true, bound),
            Init::Normal { std } => (false, std),
            Init::KaimingUniform => (true, (6.0 / fan_in).sqrt()),
            Init::KaimingNormal => (false, (2.0 / fan_in).sqrt()),
            Init::XavierUniform => (true, (6.0 / (fan_in + fan_out)).sqrt()),
            Init::XavierNormal => (false, (2.0 / (fan_in + fan_out)).sqrt()),
        };
        for value in values {
            *value = if uniform { stream.uniform(-scale, scale) } else { stream.normal() * scale };
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    name: String,
    shape: Shape,
    /// Whether it lies in the array of buffers.
    buffer: bool,
    offset: usize,
}

/// Named parameters in one flat array, and named buffers in another.
///
/// The initial values depend on the seed and on each parameter's name and shape only, not on the
/// order of creation: adding a layer leaves the others' first weights as they were.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    seed: u64,
    entries: Vec<Entry>,
    data: Vec<f32>,
    buffers: Vec<f32>,
}

impl Params {
    /// An empty store whose parameters will be initialised from `seed`.
    pub fn new(seed: u64) -> Self {
        Params { seed, entries: Vec::new(), data: Vec::new(), buffers: Vec::new() }
    }

    /// The seed given to [`Params::new`].
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a parameter. By convention the name is the layer's name, a dot, and `weight` or `bias`.
    ///
    /// # Panics
    /// If the name is taken.
    #[track_caller]
    pub fn add(&mut self, name: impl Into<String>, shape: impl Into<Shape>, init: Init) -> ParamId {
        self.insert(name.into(), shape.into(), init, false)
    }

    /// Adds a buffer: a tensor of the model that is not trained.
    ///
    /// # Panics
    /// If the name is taken.
    #[track_caller]
    pub fn add_buffer(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        init: Init,
    ) -> ParamId {
        self.insert(name.into(), shape.into(), init, true)
    }

    #[track_caller]
    fn insert(&mut self, name: String, shape: Shape, init: Init, buffer: bool) -> ParamId {
        assert!(self.id(&name).is_none(), "there is already a parameter called {name:?}");
        let data = if buffer { &mut self.buffers } else { &mut self.data };
        let offset = data.len();
        data.resize(offset + shape.numel().next_multiple_of(ALIGN), 0.0);
        let mut stream = Stream::new(self.seed, Purpose::Init, name_hash(&name), 0);
        init.fill(&mut data[offset..offset + shape.numel()], &shape, &mut stream);
        self.entries.push(Entry { name, shape, buffer, offset });
        ParamId(self.entries.len() as u32 - 1)
    }

    /// The parameter or buffer called `name`.
    pub fn id(&self, name: &str) -> Option<ParamId> {
        self.entries.iter().position(|entry| entry.name == name).map(|index| ParamId(index as u32))
    }

    /// All parameters and buffers in order of creation.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = ParamId> + use<> {
        (0..self.entries.len() as u32).map(ParamId)
    }

    /// Whether this is a buffer, and not a parameter.
    pub fn is_buffer(&self, id: ParamId) -> bool {
        self.entries[id.index()].buffer
    }

    /// The name of a parameter.
    pub fn name(&self, id: ParamId) -> &str {
        &self.entries[id.index()].name
    }

    /// The shape of a parameter.
    pub fn shape(&self, id: ParamId) -> Shape {
        self.entries[id.index()].shape
    }

    /// The values of a parameter in row-major order.
    pub fn get(&self, id: ParamId) -> &[f32] {
        let data = if self.is_buffer(id) { &self.buffers } else { &self.data };
        &data[self.range(id)]
    }

    /// The values of a parameter, to write to.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [f32] {
        let range = self.range(id);
        let data = if self.is_buffer(id) { &mut self.buffers } else { &mut self.data };
        &mut data[range]
    }

    /// The values of a parameter as an `ndarray` view.
    pub fn view(&self, id: ParamId) -> ArrayViewD<'_, f32> {
        ArrayViewD::from_shape(IxDyn(&self.shape(id)), self.get(id))
            .expect("entries fit the buffer")
    }

    /// A copy of a parameter.
    pub fn tensor(&self, id: ParamId) -> Tensor {
        Tensor::from_vec(self.get(id).to_vec(), self.shape(id))
    }

    /// The number of trainable values.
    pub fn numel(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.buffer).map(|entry| entry.shape.numel()).sum()
    }

    /// All parameters. Between them lie a few zeros of padding.
    pub fn flat(&self) -> &[f32] {
        &self.data
    }

    /// All parameters, to write to. The padding must stay zero.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// All buffers. Between them lie a few zeros of padding.
    pub fn flat_buffers(&self) -> &[f32] {
        &self.buffers
    }

    /// All buffers, to write to. The padding must stay zero.
    pub fn flat_buffers_mut(&mut self) -> &mut [f32] {
        &mut self.buffers
    }

    /// Several different buffers at once, to write to.
    pub(crate) fn buffers_mut<const N: usize>(&mut self, ids: [ParamId; N]) -> [&mut [f32]; N] {
        assert!(ids.iter().all(|&id| self.is_buffer(id)), "{ids:?} are not all buffers");
        let ranges = ids.map(|id| self.range(id));
        self.buffers.get_disjoint_mut(ranges).expect("buffers do not overlap")
    }

    /// Where a parameter lies in [`Params::flat`], and in every array of the same layout
    /// (gradients, optimizer slots); for a buffer, where it lies in [`Params::flat_buffers`].
    pub fn range(&self, id: ParamId) -> std::ops::Range<usize> {
        let entry = &self.entries[id.index()];
        entry.offset..entry.offset + entry.shape.numel()
    }
}

/// FNV-1a, 64 bits: turns a name into the counter of its random stream.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        (mean, var.sqrt())
    }

    #[test]
    fn initial_values_do_not_depend_on_the_order_of_creation() {
        let (mut a, mut b) = (Params::new(7), Params::new(7));
        let a1 = a.add("conv.weight", [6, 1, 5, 5], Init::KaimingUniform);
        let a2 = a.add("fc.weight", [10, 3], Init::XavierNormal);
        let b2 = b.add("fc.weight", [10, 3], Init::XavierNormal);
        let b1 = b.add("conv.weight", [6, 1, 5, 5], Init::KaimingUniform);
        assert_eq!(a.get(a1), b.get(b1));
        assert_eq!(a.get(a2), b.get(b2));
        assert_ne!(a.get(a1)[..30], a.get(a2)[..30]);
    }

    #[test]
    fn the_spread_follows_the_fans() {
        let mut params = Params::new(1);
        let shape = [64, 32, 3, 3];
        let (fan_in, fan_out) = (32.0 * 9.0, 64.0 * 9.0);
        for (init, std) in [
            (Init::KaimingNormal, (2.0f64 / fan_in).sqrt()),
            (Init::KaimingUniform, (2.0f64 / fan_in).sqrt()),
            (Init::XavierNormal, (2.0f64 / (fan_in + fan_out)).sqrt()),
            (Init::XavierUniform, (2.0f64 / (fan_in + fan_out)).sqrt()),
        ] {
            let id = params.add(format!("{init:?}"), shape, init);
            let (mean, measured) = moments(params.get(id));
            assert!((measured / std - 1.0).abs() < 0.03, "{init:?}: {measured} instead of {std}");
            assert!(mean.abs() < 0.03 * std, "{init:?}: mean {mean}");
        }
    }

    #[test]
    fn parameters_begin_on_cache_lines_and_padding_is_zero() {
        let mut params = Params::new(0);
        let a = params.add("a", [3], Init::Ones);
        let b = params.add("b", [17], Init::Ones);
        assert_eq!((params.range(a), params.range(b)), (0..3, 16..33));
        assert_eq!(params.flat().iter().sum::<f32>(), 20.0);
        assert_eq!(params.numel(), 20);
    }

    #[test]
    fn buffers_lie_apart() {
        let mut params = Params::new(0);
        let w = params.add("w", [3], Init::Ones);
        let mean = params.add_buffer("mean", [2], Init::Constant(5.0));
        let b = params.add("b", [1], Init::Ones);
        assert_eq!((params.range(w), params.range(b), params.range(mean)), (0..3, 16..17, 0..2));
        assert_eq!((params.numel(), params.flat().iter().sum::<f32>()), (4, 4.0));
        params.get_mut(mean)[1] = 7.0;
        assert_eq!(
            (params.get(mean), &params.flat_buffers()[..2]),
            (&[5.0, 7.0][..], &[5.0, 7.0][..])
        );
        let names: Vec<_> =
            params.ids().map(|id| (params.name(id), params.is_buffer(id))).collect();
        assert_eq!(names, [("w", false), ("mean", true), ("b", false)]);
    }

    #[test]
    #[should_panic(expected = "already a parameter called \"a\"")]
    fn names_are_unique() {
        let mut params = Params::new(0);
        params.add("a", [1], Init::Zeros);
        params.add("a", [2], Init::Zeros);
    }
}
