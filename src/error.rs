//! One error type for everything that can fail at run time: files, data, checkpoints,
//! specifications and training runs.
//!
//! A wrong shape inside a forward pass is a programming error and panics (see `DESIGN.md`);
//! everything that depends on the outside world returns [`Result`]. Each variant names the thing
//! that failed and says what was expected, so that printing it is enough to act on it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible function of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong outside of pure computation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file or directory.
    Io {
        /// What was being done, as a verb phrase: "open", "write", "sync".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// A data file is not what it should be.
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: DataFault,
    },
    /// A checkpoint file is not what it should be.
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Where it is wrong and how.
        fault: CheckpointFault,
    },
    /// Saved weights do not fit a model.
    Load {
        /// What is missing, unexpected or of another shape.
        report: Box<crate::checkpoint::LoadReport>,
    },
    /// A run directory cannot be used.
    RunDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        fault: RunDirFault,
    },
    /// A setting, specification or argument has a value that cannot work.
    Config {
        /// The setting's name as the user wrote it.
        name: String,
        /// Why the value is refused and what would be accepted.
        reason: String,
    },
    /// A model does not fit its input.
    Shape {
        /// The operation that refused its operands.
        op: &'static str,
        /// The shapes and what was expected.
        reason: String,
    },
}

/// What is wrong with a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataFault {
    /// The first bytes are not those of the expected format.
    BadMagic {
        /// What the format begins with.
        expected: &'static str,
        /// The bytes found.
        found: [u8; 4],
    },
    /// The file ends early.
    Truncated {
        /// Bytes the header promises.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The file goes on after its declared end.
    TrailingBytes {
        /// Where the file should end, in bytes from its (uncompressed) beginning.
        declared: u64,
    },
    /// The file describes more than this reader is willing to allocate.
    TooLarge {
        /// Bytes the header asks for.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Two files that belong together hold different numbers of examples.
    CountMismatch {
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label is not smaller than the number of classes.
    LabelOutOfRange {
        /// Position of the label in the file, from 0.
        index: usize,
        /// The label.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// The compressed stream is damaged.
    BadCompression {
        /// The decoder's message.
        message: String,
    },
    /// Anything else, in words.
    Other {
        /// What is wrong and what was expected.
        message: String,
    },
}

/// What is wrong with a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckpointFault {
    /// The file does not begin like a checkpoint.
    NotACheckpoint,
    /// The path leads to a directory, a pipe or a device.
    NotARegularFile,
    /// The file ends early.
    Truncated {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A part of the file is not as it was written.
    Corrupt {
        /// The section or tensor.
        part: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file uses something that a later version of this library introduced.
    NeedsNewerReader {
        /// The format version or the section.
        what: String,
    },
    /// The file describes more than a reader is willing to handle, or a writer to write.
    OverLimit {
        /// What there is too much of.
        what: String,
        /// How much.
        value: u64,
        /// How much there may be.
        limit: u64,
    },
    /// The file's name says another generation than the file.
    WrongName {
        /// The generation written into the file.
        generation: u64,
    },
}

/// Why a run directory cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunDirFault {
    /// Another process, or another handle in this one, is writing to it.
    Locked,
    /// It holds checkpoint files, but none is valid.
    NoValidCheckpoint {
        /// The files and why each was passed over, newest first.
        skipped: Vec<crate::checkpoint::Skipped>,
    },
}

impl CheckpointFault {
    /// A damaged part and what is wrong with it.
    pub(crate) fn corrupt(part: impl Into<String>, reason: impl Into<String>) -> Self {
        CheckpointFault::Corrupt { part: part.into(), reason: reason.into() }
    }
}

impl Error {
    /// A fault of the checkpoint file at `path`.
    pub fn checkpoint(path: impl AsRef<Path>, fault: CheckpointFault) -> Self {
        Error::Checkpoint { path: path.as_ref().to_owned(), fault }
    }

    /// Wraps a system error with what was being done to which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// Whether the disk, or the user's part of it, is full.
    pub(crate) fn is_no_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// A fault of the data file at `path`.
    pub fn data(path: impl AsRef<Path>, fault: DataFault) -> Self {
        Error::Data { path: path.as_ref().to_owned(), fault }
    }

    /// A setting called `name` that cannot work, and why.
    pub fn config(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Config { name: name.into(), reason: reason.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Error::Data { path, fault } => write!(f, "{}: {fault}", path.display()),
            Error::Checkpoint { path, fault } => write!(f, "{}: {fault}", path.display()),
            Error::Load { report } => write!(f, "the weights do not fit the model: {report}"),
            Error::RunDir { path, fault } => write!(f, "{}: {fault}", path.display()),
            Error::Config { name, reason } => write!(f, "{name}: {reason}"),
            Error::Shape { op, reason } => write!(f, "{op}: {reason}"),
        }
    }
}

impl fmt::Display for DataFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataFault::BadMagic { expected, found } => {
                write!(f, "wrong magic {found:02x?}: expected {expected}")
            }
            DataFault::Truncated { expected, found } => {
                write!(f, "truncated: {found} bytes where the header promises {expected}")
            }
            DataFault::TrailingBytes { declared } => {
                write!(f, "goes on after its declared end at byte {declared}")
            }
            DataFault::TooLarge { bytes, limit } => {
                write!(f, "header asks for {bytes} bytes, over the limit of {limit}")
            }
            DataFault::CountMismatch { images, labels } => {
                write!(f, "{images} images but {labels} labels: the files do not belong together")
            }
            DataFault::LabelOutOfRange { index, label, classes } => {
                write!(f, "label {label} of example {index} is not below the {classes} classes")
            }
            DataFault::BadCompression { message } => write!(f, "damaged gzip stream: {message}"),
            DataFault::Other { message } => f.write_str(message),
        }
    }
}

impl fmt::Display for CheckpointFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointFault::NotACheckpoint => f.write_str("not a Ferrotape checkpoint"),
            CheckpointFault::NotARegularFile => f.write_str("not a regular file"),
            CheckpointFault::Truncated { expected, found } => {
                write!(f, "truncated: {found} bytes of {expected}")
            }
            CheckpointFault::Corrupt { part, reason } => write!(f, "corrupt: {part}: {reason}"),
            CheckpointFault::NeedsNewerReader { what } => {
                write!(f, "{what} is unknown to this version: update ferrotape to read the file")
            }
            CheckpointFault::OverLimit { what, value, limit } => {
                write!(f, "{value} {what}, over the limit of {limit} for a file of this size")
            }
            CheckpointFault::WrongName { generation } => {
                write!(f, "renamed: the file itself says generation {generation}")
            }
        }
    }
}

impl fmt::Display for RunDirFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunDirFault::Locked => {
                f.write_str("the run directory is in use: another process holds its lock")
            }
            RunDirFault::NoValidCheckpoint { skipped } => {
                f.write_str("no valid checkpoint: nothing was changed, these were tried:")?;
                skipped.iter().try_for_each(|file| write!(f, "\n  {}", file.error))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
