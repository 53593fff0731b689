//! A training state to the bytes of a file.
//!
//! Everything that could be refused is checked by [`Plan::new`], before a file exists. Then the
//! tensors are streamed in order, hashed chunk by chunk on their way, and the head of the file,
//! which contains the checksums, is written last: a torn file does not even have the magic.

use std::io::{self, SeekFrom};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use super::CheckpointFault;
use super::codec::{
    self, ConfWire, CursWire, List, MetaWire, MetricWire, NumberWire, OptmWire, PairWire, SchdWire,
    SpecWire, Text, TidxWire, TimeWire,
};
use super::format::{
    self, CRITICAL, Checksum, ENTRY_BYTES, Entry, HEADER_BYTES, Hasher, Header, TRAILER_BYTES,
    align_up, checksum,
};
use super::index::{TensorInfo, Values, index_of};
use super::state::{Cursor, Metric, TrainingState};
use super::vfs::WriteFile;

/// How much is converted, hashed and written at a time: small enough to stay in the L2 cache.
const CHUNK: usize = 256 << 10;
/// How many chunks there are between the thread that hashes and the one that writes.
const CHUNKS: usize = 4;

/// The name and version that go into META.
const WRITER: &str = concat!("ferrotape ", env!("CARGO_PKG_VERSION"));

/// A state ready to be written: checked, laid out, metadata encoded.
pub(super) struct Plan<'a> {
    state: &'a TrainingState<'a>,
    generation: u64,
    infos: Vec<TensorInfo>,
    values: Vec<Values<'a>>,
    /// The sections before TIDX, encoded.
    sections: Vec<([u8; 4], Vec<u8>)>,
    /// Where the tensors begin, their size with padding between, and the size of the file. All
    /// integers have a fixed width, so that these are known before any checksum is.
    tdat: u64,
    tdat_len: u64,
    file_len: u64,
}

impl<'a> Plan<'a> {
    /// Checks and lays out a state.
    pub(super) fn new(
        state: &'a TrainingState<'a>,
        generation: u64,
        metric: Option<&Metric>,
    ) -> Result<Plan<'a>, CheckpointFault> {
        let (infos, values) = index_of(state)?;
        let mut sections = vec![
            (*b"META", codec::encode(&meta_wire(metric))),
            (*b"CONF", codec::encode(&conf_wire(state))),
            (*b"OPTM", codec::encode(&optm_wire(state))),
            (*b"SCHD", codec::encode(&schd_wire(state))),
            (*b"CURS", codec::encode(&curs_wire(state))),
            (*b"SPEC", codec::encode(&spec_wire(state))),
        ];
        if !state.clock.is_empty() {
            let clock = List(state.clock.clone());
            sections.push((*b"TIME", codec::encode(&TimeWire { clock })));
        }
        let count = sections.len() + 2;
        let mut end = (HEADER_BYTES + ENTRY_BYTES * count) as u64;
        for (_, bytes) in &sections {
            end = aligned(end) + bytes.len() as u64;
        }
        let tidx_len = tidx_bytes(&infos).len() as u64;
        let tdat = aligned(aligned(end) + tidx_len);
        let tdat_len = infos.last().map_or(0, |info| info.offset + info.bytes);
        let file_len = aligned(tdat + tdat_len) + TRAILER_BYTES as u64;

        let metadata = tidx_len + sections.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
        let over = |what: &str, value, limit| CheckpointFault::OverLimit {
            what: what.to_owned(),
            value,
            limit,
        };
        if metadata > format::metadata_limit(file_len) {
            return Err(over("bytes of metadata", metadata, format::metadata_limit(file_len)));
        }
        if infos.len() as u64 > format::tensor_limit(file_len) {
            return Err(over("tensors", infos.len() as u64, format::tensor_limit(file_len)));
        }
        Ok(Plan { state, generation, infos, values, sections, tdat, tdat_len, file_len })
    }

    /// The length the file will have.
    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Writes the file, which must be new and empty. Returns the state's digest.
    pub(super) fn write(mut self, file: &mut dyn WriteFile) -> io::Result<Checksum> {
        self.write_tensors(file)?;
        let entries = self.directory();
        let digest = format::digest_of(&entries);
        let header = Header {
            sections: entries.len() as u32,
            file_len: self.file_len,
            generation: self.generation,
            epoch: self.state.cursor.epoch,
            step: self.state.cursor.step,
            digest,
        };
        let (mut head, trailer) = format::encode_head(header, &entries);
        file.write_all(&trailer)?;
        for (entry, (_, bytes)) in entries.iter().zip(&self.sections) {
            head.resize(entry.offset as usize, 0);
            head.extend_from_slice(bytes);
        }
        head.resize(self.tdat as usize, 0);
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&head)?;
        Ok(digest)
    }

    /// Streams TDAT, padded up to the trailer, and notes each tensor's checksum. A second thread
    /// converts and hashes the next chunks while this one writes.
    fn write_tensors(&mut self, file: &mut dyn WriteFile) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.tdat))?;
        let (full, next) = mpsc::sync_channel::<Vec<u8>>(CHUNKS);
        let (done, empty) = mpsc::channel::<Vec<u8>>();
        for _ in 0..CHUNKS {
            done.send(Vec::new()).expect("both ends are here");
        }
        let Plan { infos, values, .. } = self;
        thread::scope(move |scope| {
            scope.spawn(move || {
                for (info, values) in infos.iter_mut().zip(values) {
                    // If writing has failed, nobody takes or returns chunks any more.
                    let Some(checksum) = stream(*values, &full, &empty) else { return };
                    info.checksum = checksum;
                }
            });
            let written = next.into_iter().try_for_each(|chunk| {
                file.write_all(&chunk)?;
                let _ = done.send(chunk);
                Ok(())
            });
            // The scope waits for a thread that may be waiting for a chunk.
            drop(done);
            written
        })
    }

    /// The directory, once every checksum is known; TIDX joins the encoded sections.
    fn directory(&mut self) -> Vec<Entry> {
        self.sections.push((*b"TIDX", tidx_bytes(&self.infos)));
        let mut entries = Vec::with_capacity(self.sections.len() + 1);
        let mut end = (HEADER_BYTES + ENTRY_BYTES * (self.sections.len() + 1)) as u64;
        for (tag, bytes) in &self.sections {
            let (offset, len) = (aligned(end), bytes.len() as u64);
            end = offset + len;
            let checksum = checksum(bytes);
            let flags = if tag == b"TIME" { 0 } else { CRITICAL };
            entries.push(Entry { tag: *tag, flags, offset, len, checksum });
        }
        entries.push(Entry {
            tag: *b"TDAT",
            flags: CRITICAL,
            offset: self.tdat,
            len: self.tdat_len,
            checksum: [0; 16],
        });
        entries
    }
}

fn aligned(offset: u64) -> u64 {
    align_up(offset).expect("what is in memory fits in a file")
}

/// Sends the values as little-endian bytes, chunk by chunk and padded to a multiple of 64, and
/// returns their checksum; `None` if the other side is gone.
fn stream(
    values: Values<'_>,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Option<Checksum> {
    fn run<T: Copy, const N: usize>(
        values: &[T],
        to_bytes: impl Fn(T) -> [u8; N],
        mut sink: impl FnMut(usize, &mut dyn FnMut(&mut [u8])) -> Option<()>,
    ) -> Option<()> {
        values.chunks(CHUNK / N).try_for_each(|part| {
            sink(size_of_val(part), &mut |chunk| {
                let (bytes, _) = chunk.as_chunks_mut::<N>();
                bytes.iter_mut().zip(part).for_each(|(bytes, &value)| *bytes = to_bytes(value));
            })
        })
    }
    let mut hasher = Hasher::default();
    let mut left = values.bytes();
    let sink = |len, fill: &mut dyn FnMut(&mut [u8])| {
        let mut chunk = empty.recv().ok()?;
        chunk.resize(len, 0);
        fill(&mut chunk);
        hasher.update(&chunk);
        left -= chunk.len() as u64;
        if left == 0 {
            chunk.resize(chunk.len().next_multiple_of(format::ALIGN as usize), 0);
        }
        full.send(chunk).ok()
    };
    match values {
        Values::F32(values) => run(values, f32::to_le_bytes, sink)?,
        Values::F64(values) => run(values, f64::to_le_bytes, sink)?,
        Values::U64(values) => run(values, u64::to_le_bytes, sink)?,
    }
    Some(hasher.finish())
}

fn text(value: &str) -> Text {
    Text(value.to_owned())
}

fn numbers(values: &[(String, f64)]) -> List<NumberWire> {
    List(
        values.iter().map(|(name, value)| NumberWire { name: text(name), value: *value }).collect(),
    )
}

fn meta_wire(metric: Option<&Metric>) -> MetaWire {
    MetaWire {
        writer: text(WRITER),
        metric: metric.map(|metric| MetricWire {
            name: text(&metric.name),
            value: metric.value,
            higher_is_better: metric.higher_is_better,
        }),
    }
}

fn conf_wire(state: &TrainingState<'_>) -> ConfWire {
    let pair = |(key, value): &(String, String)| PairWire { key: text(key), value: text(value) };
    ConfWire { entries: List(state.config.iter().map(pair).collect()) }
}

fn optm_wire(state: &TrainingState<'_>) -> OptmWire {
    OptmWire { kind: text(&state.optimizer.kind), hyper: numbers(&state.optimizer.hyper) }
}

fn schd_wire(state: &TrainingState<'_>) -> SchdWire {
    SchdWire { spec: text(&state.schedule.spec), values: numbers(&state.schedule.values) }
}

fn curs_wire(state: &TrainingState<'_>) -> CursWire {
    let Cursor { seed, epoch, step, position, samples } = state.cursor;
    CursWire { seed, epoch, step, position, samples }
}

fn spec_wire(state: &TrainingState<'_>) -> SpecWire {
    SpecWire {
        monitor: text(&state.monitor),
        columns: List(state.history.columns.iter().map(|name| text(name)).collect()),
    }
}

fn tidx_bytes(infos: &[TensorInfo]) -> Vec<u8> {
    codec::encode(&TidxWire { tensors: List(infos.iter().map(TensorInfo::to_wire).collect()) })
}
