//! The small metadata sections as bytes. The only file that names bincode.
//!
//! Bincode gives the layout (fixed-width little-endian integers, `u64` lengths, fields in order,
//! nothing in between); this file gives the safety that bincode 2.0.1 does not have by itself:
//!
//! - sequences and strings are our own [`List`] and [`Text`], which check a claimed length
//!   against the bytes that are really there *before* anything is reserved;
//! - a section must be consumed to its last byte;
//! - it must encode to the very bytes it was decoded from, so that one content has one encoding;
//! - no floats in bulk, no `usize`, no maps, no elements of size zero.
//!
//! The crate is unmaintained (RUSTSEC-2025-0141, every version): replacing it means rewriting
//! this file, and nothing else. The bytes are specified in
//! `docs/checkpoint-format.md` without mentioning it.

use bincode::de::read::Reader;
use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

/// UTF-8 text: `u64` byte count, then the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

/// A sequence: `u64` element count, then the elements.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List<T>(pub(super) Vec<T>);

/// A section's content. Lets the reader be generic without naming bincode.
pub(super) trait Section: Encode + Decode<()> {}
impl<T: Encode + Decode<()>> Section for T {}

/// A wire type with its least encoded size, by which a claimed count is checked.
pub(super) trait Element {
    const MIN_BYTES: usize;
}

impl Element for u64 {
    const MIN_BYTES: usize = 8;
}
impl Element for Text {
    const MIN_BYTES: usize = 8;
}

/// META: what is said *about* the state; not part of its digest.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct MetaWire {
    pub(super) writer: Text,
    pub(super) metric: Option<MetricWire>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct MetricWire {
    pub(super) name: Text,
    pub(super) value: f64,
    pub(super) higher_is_better: bool,
}

/// CONF: configuration pairs.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct ConfWire {
    pub(super) entries: List<PairWire>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct PairWire {
    pub(super) key: Text,
    pub(super) value: Text,
}

impl Element for PairWire {
    const MIN_BYTES: usize = 16;
}

/// OPTM: the optimizer without its slots, which are tensors.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct OptmWire {
    pub(super) kind: Text,
    pub(super) hyper: List<NumberWire>,
}

/// SCHD: the learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct SchdWire {
    pub(super) spec: Text,
    pub(super) values: List<NumberWire>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct NumberWire {
    pub(super) name: Text,
    pub(super) value: f64,
}

impl Element for NumberWire {
    const MIN_BYTES: usize = 16;
}

/// CURS: the position in the run.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct CursWire {
    pub(super) seed: u64,
    pub(super) epoch: u64,
    pub(super) step: u64,
    pub(super) position: u64,
    pub(super) samples: u64,
}

/// SPEC: the monitor's rule and the history's column names; its cells are tensors.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct SpecWire {
    pub(super) monitor: Text,
    pub(super) columns: List<Text>,
}

/// TIME: milliseconds of training at each evaluation and at the end. Not critical, and there only
/// if it was measured.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct TimeWire {
    pub(super) clock: List<u64>,
}

/// TIDX: one entry per tensor, in the order of their bytes in TDAT.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct TidxWire {
    pub(super) tensors: List<TensorWire>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct TensorWire {
    pub(super) role: u8,
    pub(super) dtype: u8,
    pub(super) name: Text,
    pub(super) shape: List<u64>,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) checksum: [u8; 16],
}

impl Element for TensorWire {
    const MIN_BYTES: usize = 2 + 8 + 8 + 8 + 8 + 16;
}

/// The bytes of a section.
pub(super) fn encode<T: Section>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, config()).expect("encoding into memory cannot fail")
}

/// The content of a section, or why these bytes are not one.
pub(super) fn decode<T: Section>(bytes: &[u8]) -> Result<T, String> {
    let (value, used) =
        bincode::decode_from_slice::<T, _>(bytes, config()).map_err(|error| match error {
            DecodeError::UnexpectedEnd { .. } => "a length goes past the end".to_owned(),
            DecodeError::Other(message) => message.to_owned(),
            error => error.to_string(),
        })?;
    if used != bytes.len() {
        return Err(format!("{} bytes left over", bytes.len() - used));
    }
    let mut same = Same { rest: bytes };
    match bincode::encode_into_writer(&value, &mut same, config()) {
        Ok(()) if same.rest.is_empty() => Ok(value),
        _ => Err("not in canonical form".to_owned()),
    }
}

/// A writer that only accepts the bytes it was given, and so needs no memory for them.
struct Same<'a> {
    rest: &'a [u8],
}

impl Writer for &mut Same<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.rest = self.rest.strip_prefix(bytes).ok_or(EncodeError::Other("other bytes"))?;
        Ok(())
    }
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding()
}

/// Reads a count and refuses it unless that many elements of at least `min` bytes are there.
fn checked_len<D: Decoder>(decoder: &mut D, min: usize) -> Result<usize, DecodeError> {
    let claimed: u64 = Decode::decode(decoder)?;
    usize::try_from(claimed)
        .ok()
        .and_then(|len| Some((len, len.checked_mul(min)?)))
        .filter(|&(_, bytes)| decoder.reader().peek_read(bytes).is_some())
        .map(|(len, _)| len)
        .ok_or(DecodeError::Other("a length goes past the end"))
}

impl Encode for Text {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u64).encode(encoder)?;
        encoder.writer().write(self.0.as_bytes())
    }
}

impl<Context> Decode<Context> for Text {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = checked_len(decoder, 1)?;
        let mut bytes = vec![0; len];
        decoder.reader().read(&mut bytes)?;
        String::from_utf8(bytes).map(Text).map_err(|_| DecodeError::Other("text is not UTF-8"))
    }
}

impl<T: Encode> Encode for List<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u64).encode(encoder)?;
        self.0.iter().try_for_each(|element| element.encode(encoder))
    }
}

impl<Context, T: Element + Decode<Context>> Decode<Context> for List<T> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = checked_len(decoder, T::MIN_BYTES)?;
        let mut elements = Vec::with_capacity(len);
        for _ in 0..len {
            elements.push(T::decode(decoder)?);
        }
        Ok(List(elements))
    }
}

// The derive asks for the borrowing form as well, which for owned data is the same thing.
bincode::impl_borrow_decode!(Text);

impl<'de, Context, T: Element + Decode<Context>> BorrowDecode<'de, Context> for List<T> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_anything_is_reserved() {
        for claimed in [1_u64, 1 << 30, 1 << 40, u64::MAX] {
            let bytes = claimed.to_le_bytes();
            assert!(decode::<ConfWire>(&bytes).is_err());
            assert!(decode::<TidxWire>(&bytes).is_err());
        }
    }

    #[test]
    fn trailing_bytes_wrong_text_and_loose_encodings_are_refused() {
        let mut bytes = encode(&ConfWire { entries: List(vec![]) });
        assert!(decode::<ConfWire>(&bytes).is_ok());
        bytes.push(0);
        assert_eq!(decode::<ConfWire>(&bytes).unwrap_err(), "1 bytes left over");

        let pair = PairWire { key: Text("k".into()), value: Text("v".into()) };
        let mut bytes = encode(&ConfWire { entries: List(vec![pair]) });
        *bytes.last_mut().unwrap() = 0xff;
        assert_eq!(decode::<ConfWire>(&bytes).unwrap_err(), "text is not UTF-8");

        let mut bytes = encode(&MetaWire { writer: Text(String::new()), metric: None });
        bytes[8] = 2; // an option is 0 or 1
        assert!(decode::<MetaWire>(&bytes).is_err());
    }

    #[test]
    fn integers_are_fixed_width_little_endian() {
        let cursor = CursWire { seed: 1, epoch: 2, step: 3, position: 4, samples: 0x0506 };
        let bytes = encode(&cursor);
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[32..34], [6, 5]);
        assert_eq!(decode::<CursWire>(&bytes).unwrap(), cursor);
    }
}
