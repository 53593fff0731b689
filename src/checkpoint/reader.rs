//! The bytes of a file to a training state, believing nothing.
//!
//! [`CheckpointFile::open`] reads header, directory, trailer and metadata, which takes
//! microseconds whatever the size of the tensors, and leaves a file whose structure is known to
//! be sound. [`CheckpointFile::read_state`] and [`CheckpointFile::verify`] then go through every
//! remaining byte. Each length is checked against the length of the real file before anything is
//! allocated; memory stays near the size of the file; no content can cause a panic.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, thread};

use ferrotape_kernels::memory::prefer_huge_pages;

use super::CheckpointFault;
use super::codec::{
    self, ConfWire, CursWire, List, MetaWire, NumberWire, OptmWire, SchdWire, SpecWire, TidxWire,
    TimeWire,
};
use super::format::{
    self, CRITICAL, Checksum, ENTRY_BYTES, Entry, HEADER_BYTES, Hasher, Header, TRAILER_BYTES,
    align_up, checksum,
};
use super::index::{self, Dtype, Role, TensorInfo};
use super::state::{
    Cursor, History, Metric, NamedTensor, OptimizerState, ScheduleState, TrainingState,
};
use super::vfs::{ReadFile, RealFs, Vfs};
use crate::error::{Error, Result};

/// How much is read, hashed and converted at a time by one thread.
const CHUNK: usize = 64 << 10;
/// More threads than this would only wait for memory, and cost a chunk each.
const MAX_THREADS: usize = 4;
/// Below this size a second thread costs more than it saves.
const BYTES_PER_THREAD: u64 = 4 << 20;

/// The sections that every file has, in this order.
const KNOWN: [&[u8; 4]; 8] =
    [b"META", b"CONF", b"OPTM", b"SCHD", b"CURS", b"SPEC", b"TIDX", b"TDAT"];
/// A section that a file may have.
const TIME: &[u8; 4] = b"TIME";

/// An open checkpoint file whose structure and metadata have been verified, tensors not yet.
pub struct CheckpointFile {
    path: PathBuf,
    file: Box<dyn ReadFile>,
    header: Header,
    entries: Vec<Entry>,
    tdat: Entry,
    tensors: Vec<TensorInfo>,
    metric: Option<Metric>,
    writer: String,
    /// The state without its tensors.
    skeleton: TrainingState<'static>,
}

impl std::fmt::Debug for CheckpointFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointFile")
            .field("path", &self.path)
            .field("generation", &self.header.generation)
            .field("step", &self.header.step)
            .finish_non_exhaustive()
    }
}

impl CheckpointFile {
    /// Opens a file and verifies all but its tensors.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses to read it, [`Error::Checkpoint`] with the file, the
    /// place and the reason if it is not a valid checkpoint.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_in(&RealFs, path.as_ref())
    }

    /// [`CheckpointFile::open`] on any file system.
    ///
    /// # Errors
    /// As there.
    pub fn open_in(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let file = vfs.open(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                Error::checkpoint(path, CheckpointFault::NotARegularFile)
            }
            _ => Error::io("open", path, error),
        })?;
        Self::read_metadata(path, file).map_err(|failure| failure.at(path))
    }

    /// Opens a file that is already in memory, such as one built into the program with
    /// [`include_bytes!`]. Its path, for messages, is "(memory)".
    ///
    /// # Errors
    /// As for [`CheckpointFile::open`].
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        let path = Path::new("(memory)");
        Self::read_metadata(path, Box::new(bytes.into())).map_err(|failure| failure.at(path))
    }

    fn read_metadata(path: &Path, file: Box<dyn ReadFile>) -> Result<Self, Failure> {
        let len = file.size()?;
        if len < HEADER_BYTES as u64 {
            let mut start = vec![0; len.min(8) as usize];
            file.read_exact_at(&mut start, 0)?;
            return Err(Failure::Fault(if format::MAGIC.starts_with(&start) {
                CheckpointFault::Truncated { expected: HEADER_BYTES as u64, found: len }
            } else {
                CheckpointFault::NotACheckpoint
            }));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let header = Header::parse(&head, len)?;
        if header.head_len() + TRAILER_BYTES as u64 > len {
            return Err(CheckpointFault::corrupt("header", "no room for the directory").into());
        }
        let mut directory = vec![0; ENTRY_BYTES * header.sections as usize];
        file.read_exact_at(&mut directory, HEADER_BYTES as u64)?;
        let mut trailer = [0; TRAILER_BYTES];
        file.read_exact_at(&mut trailer, len - TRAILER_BYTES as u64)?;
        let entries = format::parse_directory(&head, &header, &directory, &trailer)?;
        let tdat = check_sections(&header, &entries)?;

        let sections = Sections { file: &*file, entries: &entries };
        let meta: MetaWire = sections.decode(b"META")?;
        let conf: ConfWire = sections.decode(b"CONF")?;
        let optm: OptmWire = sections.decode(b"OPTM")?;
        let schd: SchdWire = sections.decode(b"SCHD")?;
        let curs: CursWire = sections.decode(b"CURS")?;
        let spec: SpecWire = sections.decode(b"SPEC")?;
        let tidx: TidxWire = sections.decode(b"TIDX")?;

        let count = tidx.tensors.0.len() as u64;
        if count > format::tensor_limit(len) {
            let limit = format::tensor_limit(len);
            return Err(
                CheckpointFault::OverLimit { what: "tensors".into(), value: count, limit }.into()
            );
        }
        let tensors = tidx
            .tensors
            .0
            .into_iter()
            .map(TensorInfo::from_wire)
            .collect::<Result<Vec<_>, CheckpointFault>>()?;
        index::check(&tensors)?;
        if tensors.last().map_or(0, |info| info.offset + info.bytes) != tdat.len {
            return Err(CheckpointFault::corrupt("TIDX", "does not describe all of TDAT").into());
        }
        let columns: Vec<String> = spec.columns.0.into_iter().map(|name| name.0).collect();
        index::check_names("SPEC", columns.iter().map(String::as_str))?;
        let cells = tensors.iter().find(|info| info.role == Role::History && info.name == "values");
        if cells.is_none_or(|info| info.shape[1] != columns.len()) {
            return Err(CheckpointFault::corrupt("SPEC", "other columns than the history").into());
        }
        let mut clock = Vec::new();
        if entries.iter().any(|entry| &entry.tag == TIME) {
            let time: TimeWire = sections.decode(TIME)?;
            clock = time.clock.0;
            let rows = cells.map_or(0, |info| info.shape[0]);
            if clock.len() != rows + 1 {
                return Err(CheckpointFault::corrupt("TIME", "not one for each evaluation").into());
            }
        }
        if (curs.epoch, curs.step) != (header.epoch, header.step) {
            return Err(CheckpointFault::corrupt("CURS", "not the position in the header").into());
        }

        let skeleton = TrainingState {
            config: conf.entries.0.into_iter().map(|pair| (pair.key.0, pair.value.0)).collect(),
            params: Vec::new(),
            buffers: Vec::new(),
            optimizer: OptimizerState {
                kind: optm.kind.0,
                hyper: numbers(optm.hyper),
                slots: Vec::new(),
            },
            schedule: ScheduleState { spec: schd.spec.0, values: numbers(schd.values) },
            cursor: Cursor {
                seed: curs.seed,
                epoch: curs.epoch,
                step: curs.step,
                position: curs.position,
                samples: curs.samples,
            },
            monitor: spec.monitor.0,
            history: History { columns, ..History::default() },
            clock,
        };
        let metric = meta.metric.map(|metric| Metric {
            name: metric.name.0,
            value: metric.value,
            higher_is_better: metric.higher_is_better,
        });
        let writer = meta.writer.0;
        let path = path.to_owned();
        Ok(CheckpointFile { path, file, header, entries, tdat, tensors, metric, writer, skeleton })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.header.file_len
    }

    /// The generation written into the file.
    pub fn generation(&self) -> u64 {
        self.header.generation
    }

    /// The metric measured with these weights, if they were evaluated when they were saved.
    pub fn metric(&self) -> Option<&Metric> {
        self.metric.as_ref()
    }

    /// The program that wrote the file.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// The position in the run.
    pub fn cursor(&self) -> Cursor {
        self.skeleton.cursor
    }

    /// The digest of the state, 32 hexadecimal digits. Equal states have equal digests, whatever
    /// the generation, name, metric or pin of the files they are in.
    pub fn digest(&self) -> String {
        hex(&self.header.digest)
    }

    /// The tensors, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The state without its tensors: configuration, optimizer settings, schedule, monitor,
    /// cursor and the names of the history's columns.
    pub fn metadata(&self) -> &TrainingState<'static> {
        &self.skeleton
    }

    /// Reads the whole state, verifying every byte of the file.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Checkpoint`], naming the tensor or section that is damaged.
    pub fn read_state(self) -> Result<TrainingState<'static>> {
        let read = || {
            self.check_padding_and_unknown()?;
            self.read_tensors(true)
        };
        let values = read().map_err(|failure| failure.at(&self.path))?;
        Ok(self.assemble(values))
    }

    /// Verifies every byte of the file without keeping any.
    ///
    /// # Errors
    /// As for [`CheckpointFile::read_state`].
    pub fn verify(&self) -> Result<()> {
        let read = || {
            self.check_padding_and_unknown()?;
            self.read_tensors(false)
        };
        read().map(drop).map_err(|failure| failure.at(&self.path))
    }

    /// Reads and verifies one tensor of type f32.
    ///
    /// # Errors
    /// As for [`CheckpointFile::read_state`].
    ///
    /// # Panics
    /// If there is no tensor of type f32 with this role and name; see
    /// [`CheckpointFile::tensors`].
    #[track_caller]
    pub fn read_tensor(&self, role: Role, name: &str) -> Result<NamedTensor<'static>> {
        let info = self
            .tensors
            .iter()
            .find(|info| info.role == role && info.name == name && info.dtype == Dtype::F32)
            .unwrap_or_else(|| panic!("no {role:?} of type f32 named {name:?} in this file"));
        let read = self.read_values(info, true, &mut Vec::new());
        match read.map_err(|failure| failure.at(&self.path))? {
            Owned::F32(data) => Ok(NamedTensor::new(name, info.shape.clone(), data)),
            Owned::F64(_) | Owned::U64(_) => unreachable!("selected by type"),
        }
    }

    /// Reads and verifies the history alone, which is small whatever the size of the weights.
    ///
    /// # Errors
    /// As for [`CheckpointFile::read_state`].
    pub fn read_history(&self) -> Result<History> {
        let mut history = self.skeleton.history.clone();
        for info in self.tensors.iter().filter(|info| info.role == Role::History) {
            let values = self.read_values(info, true, &mut Vec::new());
            set_column(&mut history, &info.name, values.map_err(|failure| failure.at(&self.path))?);
        }
        Ok(history)
    }

    /// Puts the values of all tensors where they belong.
    fn assemble(self, values: Vec<Owned>) -> TrainingState<'static> {
        let mut state = self.skeleton;
        for (info, values) in self.tensors.into_iter().zip(values) {
            match (info.role, values) {
                (Role::History, values) => set_column(&mut state.history, &info.name, values),
                (role, Owned::F32(values)) => {
                    let list = match role {
                        Role::Param => &mut state.params,
                        Role::Buffer => &mut state.buffers,
                        _ => &mut state.optimizer.slots,
                    };
                    list.push(NamedTensor {
                        name: info.name,
                        shape: info.shape,
                        data: Cow::Owned(values),
                    });
                }
                (role, _) => unreachable!("{role:?} {} has a checked type", info.name),
            }
        }
        state
    }

    /// Every byte that belongs to no section and no tensor is zero, and sections that this reader
    /// does not know still have their checksum.
    fn check_padding_and_unknown(&self) -> Result<(), Failure> {
        let mut end = self.header.head_len();
        for entry in &self.entries {
            self.check_zero(end, entry.offset, "padding")?;
            end = entry.offset + entry.len;
            if !KNOWN.contains(&&entry.tag) {
                let mut hasher = Hasher::default();
                self.for_each_chunk(entry.offset, entry.len, &mut Vec::new(), |bytes| {
                    hasher.update(bytes);
                })?;
                if hasher.finish() != entry.checksum {
                    return Err(CheckpointFault::corrupt(entry.name(), "wrong checksum").into());
                }
            }
        }
        self.check_zero(end, self.header.file_len - TRAILER_BYTES as u64, "padding")
    }

    /// At most 63 bytes from `start` to `end` are zero.
    fn check_zero(&self, start: u64, end: u64, what: &str) -> Result<(), Failure> {
        let mut padding = [0; format::ALIGN as usize];
        let padding = &mut padding[..(end - start) as usize];
        self.file.read_exact_at(padding, start)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(CheckpointFault::corrupt(what, "not zero").into());
        }
        Ok(())
    }

    /// Reads all tensors, the threads taking one after the other.
    fn read_tensors(&self, keep: bool) -> Result<Vec<Owned>, Failure> {
        let threads = match 1 + self.tdat.len / BYTES_PER_THREAD {
            1 => 1, // asking the system how many there are takes longer than reading
            useful => thread::available_parallelism()
                .map_or(1, usize::from)
                .min(MAX_THREADS)
                .min(useful as usize),
        };
        let next = AtomicUsize::new(0);
        let read: Vec<OnceLock<_>> = self.tensors.iter().map(|_| OnceLock::new()).collect();
        let work = || {
            let mut chunk = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(info) = self.tensors.get(i) else { break };
                let _ = read[i].set(self.read_values(info, keep, &mut chunk));
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        read.into_iter().map(|one| one.into_inner().expect("every tensor was taken")).collect()
    }

    fn read_values(
        &self,
        info: &TensorInfo,
        keep: bool,
        chunk: &mut Vec<u8>,
    ) -> Result<Owned, Failure> {
        let start = self.tdat.offset + info.offset;
        let mut hasher = Hasher::default();
        let mut values = Owned::with_capacity(info.dtype, if keep { info.bytes } else { 0 })?;
        self.for_each_chunk(start, info.bytes, chunk, |bytes| {
            hasher.update(bytes);
            if keep {
                values.extend(bytes);
            }
        })?;
        let place = || format!("tensor {:?}", info.name);
        if hasher.finish() != info.checksum {
            return Err(CheckpointFault::corrupt(place(), "wrong checksum").into());
        }
        let end = info.offset + info.bytes;
        let next = align_up(end).unwrap_or(end).min(self.tdat.len);
        self.check_zero(self.tdat.offset + end, self.tdat.offset + next, "padding")?;
        Ok(values)
    }

    fn for_each_chunk(
        &self,
        start: u64,
        len: u64,
        chunk: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let room = len.min(CHUNK as u64) as usize;
        if chunk.len() < room {
            chunk.resize(room, 0);
        }
        let mut done = 0;
        while done < len {
            let bytes = &mut chunk[..(len - done).min(room as u64) as usize];
            self.file.read_exact_at(bytes, start + done)?;
            sink(bytes);
            done += bytes.len() as u64;
        }
        Ok(())
    }
}

/// What must hold of the directory as a whole: every known section is there, in order and marked
/// critical; no unknown one is critical; metadata is within its limit.
fn check_sections(header: &Header, entries: &[Entry]) -> Result<Entry, CheckpointFault> {
    let known = |entry: &&Entry| KNOWN.contains(&&entry.tag);
    if let Some(entry) = entries.iter().find(|entry| !known(entry) && entry.is_critical()) {
        return Err(CheckpointFault::NeedsNewerReader {
            what: format!("section {}", entry.name()),
        });
    }
    let present = entries.iter().filter(known);
    if !present.clone().map(|entry| &entry.tag).eq(KNOWN) {
        return Err(CheckpointFault::corrupt("directory", "a section is missing or out of order"));
    }
    if present.clone().any(|entry| entry.flags != CRITICAL) {
        return Err(CheckpointFault::corrupt("directory", "a known section is not critical"));
    }
    let tdat = *present.clone().next_back().expect("all are present");
    if tdat.checksum != Checksum::default() {
        return Err(CheckpointFault::corrupt("directory", "TDAT has a checksum of its own"));
    }
    let time = entries.iter().filter(|entry| &entry.tag == TIME);
    let metadata = present.chain(time).map(|entry| entry.len).sum::<u64>() - tdat.len;
    let limit = format::metadata_limit(header.file_len);
    if metadata > limit {
        let what = "bytes of metadata".to_owned();
        return Err(CheckpointFault::OverLimit { what, value: metadata, limit });
    }
    Ok(tdat)
}

/// The metadata sections of a file.
struct Sections<'a> {
    file: &'a dyn ReadFile,
    entries: &'a [Entry],
}

impl Sections<'_> {
    /// Reads, verifies and decodes one section, which [`check_sections`] has found small.
    fn decode<T>(&self, tag: &[u8; 4]) -> Result<T, Failure>
    where
        T: codec::Section,
    {
        let entry = self.entries.iter().find(|entry| &entry.tag == tag).expect("checked before");
        let mut bytes = vec![0; entry.len as usize];
        self.file.read_exact_at(&mut bytes, entry.offset)?;
        if checksum(&bytes) != entry.checksum {
            return Err(CheckpointFault::corrupt(entry.name(), "wrong checksum").into());
        }
        codec::decode(&bytes)
            .map_err(|reason| CheckpointFault::corrupt(entry.name(), reason).into())
    }
}

/// Puts one of the history's four tensors, whose types have been checked, where it belongs.
fn set_column(history: &mut History, name: &str, values: Owned) {
    match (name, values) {
        ("epochs", Owned::U64(values)) => history.epochs = values,
        (_, Owned::U64(values)) => history.steps = values,
        (_, Owned::F64(values)) => history.values = values,
        (_, Owned::F32(values)) => history.samples = values,
    }
}

fn numbers(list: List<NumberWire>) -> Vec<(String, f64)> {
    list.0.into_iter().map(|number| (number.name.0, number.value)).collect()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).expect("four bits");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Values read from a file.
enum Owned {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U64(Vec<u64>),
}

impl Owned {
    fn with_capacity(dtype: Dtype, bytes: u64) -> Result<Owned, Failure> {
        fn reserve<T>(bytes: u64) -> Result<Vec<T>, Failure> {
            let mut values = Vec::new();
            let count = usize::try_from(bytes).unwrap_or(usize::MAX) / size_of::<T>();
            values
                .try_reserve_exact(count)
                .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            prefer_huge_pages(values.spare_capacity_mut());
            Ok(values)
        }
        Ok(match dtype {
            Dtype::F32 => Owned::F32(reserve(bytes)?),
            Dtype::F64 => Owned::F64(reserve(bytes)?),
            Dtype::U64 => Owned::U64(reserve(bytes)?),
        })
    }

    fn extend(&mut self, bytes: &[u8]) {
        fn run<T, const N: usize>(to: &mut Vec<T>, bytes: &[u8], from: impl Fn([u8; N]) -> T) {
            let (values, _) = bytes.as_chunks::<N>();
            to.extend(values.iter().map(|&value| from(value)));
        }
        match self {
            Owned::F32(values) => run(values, bytes, f32::from_le_bytes),
            Owned::F64(values) => run(values, bytes, f64::from_le_bytes),
            Owned::U64(values) => run(values, bytes, u64::from_le_bytes),
        }
    }
}

/// Why reading stopped, before the path is added.
enum Failure {
    Io(io::Error),
    Fault(CheckpointFault),
}

impl Failure {
    fn at(self, path: &Path) -> Error {
        match self {
            Failure::Io(source) => Error::io("read", path, source),
            Failure::Fault(fault) => Error::checkpoint(path, fault),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<CheckpointFault> for Failure {
    fn from(fault: CheckpointFault) -> Self {
        Failure::Fault(fault)
    }
}
