//! The tensor index: which tensors a file holds, and where. Writer and reader share these rules,
//! so that nothing can be written that would be refused when it is needed.

use std::collections::HashSet;

use super::CheckpointFault;
use super::codec::{List, TensorWire, Text};
use super::format::{Checksum, align_up};
use super::state::{History, TrainingState};

/// What a tensor is in the training state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A trainable parameter.
    Param,
    /// Part of the model but not trained.
    Buffer,
    /// Memory of the optimizer.
    Slot,
    /// A column of the history.
    History,
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Unsigned 64-bit integers.
    U64,
}

impl Dtype {
    /// The size of one element in bytes.
    pub fn size(self) -> u64 {
        match self {
            Dtype::F32 => 4,
            Dtype::F64 | Dtype::U64 => 8,
        }
    }
}

/// One tensor of a file, known without reading its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// What it is.
    pub role: Role,
    /// Its element type.
    pub dtype: Dtype,
    /// Its name, unique within its role.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Where its bytes begin within the TDAT section.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The XXH3-128 of its bytes: equal for equal tensors, in this file or another.
    pub checksum: Checksum,
}

/// The values of a tensor about to be written.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    U64(&'a [u64]),
}

impl Values<'_> {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Values::F32(values) => size_of_val(*values) as u64,
            Values::F64(values) => size_of_val(*values) as u64,
            Values::U64(values) => size_of_val(*values) as u64,
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
            Values::U64(_) => Dtype::U64,
        }
    }
}

/// The four tensors that every history is stored as, in order.
pub(super) const HISTORY: [(&str, Dtype); 4] = [
    ("epochs", Dtype::U64),
    ("steps", Dtype::U64),
    ("values", Dtype::F64),
    ("samples", Dtype::F32),
];

const MAX_RANK: usize = 16;
const MAX_NAME: usize = 512;

/// The index of a state and the values it points to, in file order, checksums still zero.
pub(super) fn index_of<'a>(
    state: &'a TrainingState<'_>,
) -> Result<(Vec<TensorInfo>, Vec<Values<'a>>), CheckpointFault> {
    let mut infos = Vec::new();
    let mut values = Vec::new();
    let mut offset = 0;
    let mut add = |role, name: &str, shape: &[usize], data: Values<'a>| {
        let info = TensorInfo {
            role,
            dtype: data.dtype(),
            name: name.to_owned(),
            shape: shape.to_vec(),
            offset,
            bytes: data.bytes(),
            checksum: [0; 16],
        };
        offset = align_up(offset + info.bytes).expect("tensors in memory fit in a file");
        infos.push(info);
        values.push(data);
    };
    let roles = [
        (Role::Param, &state.params),
        (Role::Buffer, &state.buffers),
        (Role::Slot, &state.optimizer.slots),
    ];
    for (role, tensors) in roles {
        for tensor in tensors {
            add(role, &tensor.name, &tensor.shape, Values::F32(&tensor.data));
        }
    }
    let History { columns, epochs, steps, values: cells, samples } = &state.history;
    let rows = epochs.len();
    let columns_data =
        [Values::U64(epochs), Values::U64(steps), Values::F64(cells), Values::F32(samples)];
    let width = samples.len() / rows.max(1);
    let shapes: [&[usize]; 4] = [&[rows], &[rows], &[rows, columns.len()], &[rows, width]];
    for (((name, _), shape), data) in HISTORY.iter().zip(shapes).zip(columns_data) {
        add(Role::History, name, shape, data);
    }
    check(&infos)?;
    check_names("SPEC", columns.iter().map(String::as_str))?;
    Ok((infos, values))
}

/// The rules of an index: roles in order, names valid and unique, shapes that give the size,
/// bytes one after the other at multiples of 64, and at the end the four history tensors.
pub(super) fn check(infos: &[TensorInfo]) -> Result<(), CheckpointFault> {
    let bad = |info: &TensorInfo, reason: &str| {
        CheckpointFault::corrupt(format!("tensor {:?}", info.name), reason)
    };
    let mut end = 0;
    for (i, info) in infos.iter().enumerate() {
        if i > 0 && infos[i - 1].role > info.role {
            return Err(bad(info, "is out of order"));
        }
        if info.role != Role::History && info.dtype != Dtype::F32 {
            return Err(bad(info, "is not f32"));
        }
        if info.shape.len() > MAX_RANK {
            return Err(bad(info, "has more than 16 dimensions"));
        }
        let bytes = info
            .shape
            .iter()
            .try_fold(info.dtype.size(), |bytes, &dim| bytes.checked_mul(dim as u64));
        if bytes != Some(info.bytes) {
            return Err(bad(info, "has a shape that does not give its size"));
        }
        if align_up(end) != Some(info.offset) {
            return Err(bad(info, "does not begin where the one before ends"));
        }
        end = info.offset.checked_add(info.bytes).ok_or_else(|| bad(info, "is too long"))?;
    }
    for run in infos.chunk_by(|a, b| a.role == b.role) {
        check_names("TIDX", run.iter().map(|info| info.name.as_str()))?;
    }
    check_history(infos)
}

fn check_history(infos: &[TensorInfo]) -> Result<(), CheckpointFault> {
    let bad = |reason: &str| CheckpointFault::corrupt("history", reason);
    let first = infos.partition_point(|info| info.role != Role::History);
    let history = &infos[first..];
    if !history.iter().map(|info| (info.name.as_str(), info.dtype)).eq(HISTORY) {
        return Err(bad("is not epochs, steps, values, samples"));
    }
    let rows = history[0].shape.first().copied().unwrap_or(0);
    let ranks = [1, 1, 2, 2];
    if history.iter().zip(ranks).any(|(info, rank)| info.shape.len() != rank)
        || history.iter().any(|info| info.shape[0] != rows)
    {
        return Err(bad("has columns of different lengths"));
    }
    Ok(())
}

/// Names are what people and tools select tensors by: not empty, of a sane length, free of
/// control characters, and each one only once.
pub(crate) fn check_names<'a>(
    section: &str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), CheckpointFault> {
    let mut seen = HashSet::new();
    for name in names {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let reason = format!("the name {:?} is empty, too long or not printable", clip(name));
            return Err(CheckpointFault::corrupt(section, reason));
        }
        if !seen.insert(name) {
            return Err(CheckpointFault::corrupt(section, format!("two tensors named {name:?}")));
        }
    }
    Ok(())
}

/// The beginning of a text, for messages.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

impl TensorInfo {
    pub(super) fn to_wire(&self) -> TensorWire {
        TensorWire {
            role: self.role as u8,
            dtype: self.dtype as u8,
            name: Text(self.name.clone()),
            shape: List(self.shape.iter().map(|&dim| dim as u64).collect()),
            offset: self.offset,
            bytes: self.bytes,
            checksum: self.checksum,
        }
    }

    pub(super) fn from_wire(wire: TensorWire) -> Result<TensorInfo, CheckpointFault> {
        let bad = |reason: &str| {
            CheckpointFault::corrupt(format!("tensor {:?}", clip(&wire.name.0)), reason)
        };
        let role = [Role::Param, Role::Buffer, Role::Slot, Role::History]
            .into_iter()
            .find(|&role| role as u8 == wire.role)
            .ok_or_else(|| bad("has an unknown role"))?;
        let dtype = [Dtype::F32, Dtype::F64, Dtype::U64]
            .into_iter()
            .find(|&dtype| dtype as u8 == wire.dtype)
            .ok_or_else(|| bad("has an unknown element type"))?;
        let shape: Option<Vec<usize>> =
            wire.shape.0.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        Ok(TensorInfo {
            role,
            dtype,
            shape: shape.ok_or_else(|| bad("is too large for this machine"))?,
            name: wire.name.0,
            offset: wire.offset,
            bytes: wire.bytes,
            checksum: wire.checksum,
        })
    }
}
