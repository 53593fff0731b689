//! Scalars for TensorBoard, in its own event files.
//!
//! An event file is a chain of TFRecords, and each record is an `Event` in protocol buffers:
//!
//! ```text
//! record   length u64 | masked crc32c of the length u32 | event | masked crc32c of the event u32
//! event    1 wall_time double | 2 step int64 | one of: 3 file_version | 5 summary | 7 session_log
//! summary  1 value, repeated: { 1 tag string | 2 simple_value float }
//! ```
//!
//! All numbers are little-endian. The field numbers are those of TensorFlow's `event.proto` and
//! `summary.proto`.

use std::fs::File;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::append::Append;
use super::{Callback, EndInfo, EvaluationInfo, RunInfo};
use crate::crc::CRC32C;
use crate::error::{Error, Result};

/// Writes losses, metrics, learning rate and the readings of the rules of every evaluation to an
/// event file that TensorBoard reads: `tensorboard --logdir runs`.
///
/// A resumed run begins a new event file in the same directory, as TensorBoard expects it, and says
/// in it from which step on the older ones are to be forgotten.
///
/// An event file always ends with a whole record. If one cannot be written, because the disk is
/// full, that is a warning of the run; it is kept in memory and written with the next, or at the
/// end.
pub struct TensorBoard {
    dir: PathBuf,
    file: Option<Append>,
}

impl TensorBoard {
    /// Writes to a new file in the directory `dir`, which is created if need be.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        TensorBoard { dir: dir.into(), file: None }
    }

    fn write(&mut self, event: &Message) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.add(&record(&event.0)))
    }
}

impl Callback for TensorBoard {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        std::fs::create_dir_all(&self.dir).map_err(|e| Error::io("create", &self.dir, e))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard looks for `tfevents` and reads files in the order of their names.
        let (seconds, nanos) = (now.as_secs(), now.subsec_nanos());
        let name = format!("events.out.tfevents.{seconds:010}.{nanos:09}.ferrotape");
        let path = self.dir.join(name);
        let file = File::create_new(&path).map_err(|e| Error::io("create", &path, e))?;
        self.file = Some(Append::new(path, file));
        self.write(&event(seconds as f64, 0).text(3, "brain.Event:2"))?;
        if run.resumed_from.is_some() {
            const START: u64 = 1;
            let log = Message::default().integer(1, START);
            self.write(&event(seconds as f64, run.step + 1).message(7, &log))?;
        }
        Ok(())
    }

    fn on_evaluation(&mut self, evaluation: &EvaluationInfo<'_>) -> Result<()> {
        let o = evaluation.observation;
        let mut scalars = vec![("loss/validation".to_owned(), o.valid_loss)];
        scalars.extend(o.train_loss.map(|loss| ("loss/training".to_owned(), loss)));
        scalars.extend(o.lr.map(|lr| ("learning_rate".to_owned(), lr)));
        scalars.extend(o.metrics.iter().map(|(name, &value)| (format!("metric/{name}"), value)));
        let readings = &evaluation.verdict.readings;
        scalars
            .extend(readings.iter().filter_map(|r| Some((format!("rule/{}", r.rule), r.value?))));
        scalars.push(("images_per_second".to_owned(), evaluation.images_per_second));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.write(&event(now.as_secs_f64(), o.step).message(5, &summary(&scalars)))
    }

    fn on_end(&mut self, _end: &EndInfo<'_>) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), Append::finish)
    }
}

fn event(wall_time: f64, step: u64) -> Message {
    Message::default().double(1, wall_time).integer(2, step)
}

fn summary(scalars: &[(String, f64)]) -> Message {
    scalars.iter().fold(Message::default(), |summary, (tag, value)| {
        summary.message(1, &Message::default().text(1, tag).float(2, *value as f32))
    })
}

/// A message of protocol buffers: fields, each a tag `number << 3 | type` and a value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(mut self, field: u8, value: u64) -> Self {
        self.0.push(field << 3);
        self.varint(value);
        self
    }

    fn double(mut self, field: u8, value: f64) -> Self {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u8, value: f32) -> Self {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn text(self, field: u8, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u8, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }

    fn bytes(mut self, field: u8, bytes: &[u8]) -> Self {
        self.0.push(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    /// Seven bits to a byte, the lowest first; the highest bit of a byte says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let (length_check, check) = (masked_crc(&length), masked_crc(content));
    [&length[..], &length_check.to_le_bytes(), content, &check.to_le_bytes()].concat()
}

/// A check that may itself be part of checked data: turned, and a constant added.
fn masked_crc(bytes: &[u8]) -> u32 {
    CRC32C.of(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_tensorflow() {
        // The first record of every event file, at wall time 1.0, as `tf.summary` writes it but for
        // the step, which it leaves out where it is 0.
        let version = Message::default().double(1, 1.0).text(3, "brain.Event:2");
        #[rustfmt::skip]
        let golden = [
            0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22,
            0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f,
            0x1a, 0x0d, b'b', b'r', b'a', b'i', b'n', b'.', b'E', b'v', b'e', b'n', b't', b':', b'2',
            0, 0, 0, 0,
        ];
        let bytes = record(&version.0);
        assert_eq!(bytes[..36], golden[..36]);
        assert_eq!(bytes.len(), golden.len());
    }

    #[test]
    fn messages_by_hand() {
        let scalars = [("a".to_owned(), 0.5), ("b".to_owned(), f64::NAN)];
        let event = event(2.0, 300).message(5, &summary(&scalars));
        #[rustfmt::skip]
        let expected = [
            0x09, 0, 0, 0, 0, 0, 0, 0, 0x40,
            0x10, 0xac, 0x02,
            0x2a, 20,
            0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0, 0x3f,
            0x0a, 8, 0x0a, 1, b'b', 0x15, 0, 0, 0xc0, 0x7f,
        ];
        assert_eq!(event.0, expected);
    }
}
