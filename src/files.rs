//! Opening files that may be anything.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{DataFault, Error, Result};

/// The most bytes of a file that is read whole: 256 MiB.
const LARGEST: u64 = 256 << 20;

/// Opens a regular file for reading. Anything else (a directory, a pipe, a device) is refused
/// before it is opened, since opening a pipe waits for somebody to write.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::InvalidInput`] for anything else than a file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// The bytes of a file.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Data`] if it is larger than 256 MiB.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let file = open(path).map_err(|e| Error::io("open", path, e))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > LARGEST {
        let fault = DataFault::TooLarge { bytes: bytes.len() as u64, limit: LARGEST };
        return Err(Error::data(path, fault));
    }
    Ok(bytes)
}

/// The text of a file, without the byte order mark that some editors put before it.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Data`] if it is larger than 256 MiB or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let text = String::from_utf8(read(path)?).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        Error::data(path, DataFault::Other { message: format!("line {line}: not UTF-8 text") })
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}
