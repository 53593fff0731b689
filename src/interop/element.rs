//! The types of number that files hold, and how each becomes an f32.

use std::fmt;

/// The type of one number in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    F32,
    F64,
    /// Whole numbers of this many bytes, 1 to 8, in two's complement.
    Signed(usize),
    /// Whole numbers of this many bytes, 1 to 8.
    Unsigned(usize),
    /// One byte that is not zero.
    Bool,
}

impl Element {
    /// The type that safetensors calls `name`.
    pub(super) fn of_safetensors(name: &str) -> Option<Element> {
        Some(match name {
            "F16" => Element::F16,
            "BF16" => Element::Bf16,
            "F32" => Element::F32,
            "F64" => Element::F64,
            "I8" => Element::Signed(1),
            "I16" => Element::Signed(2),
            "I32" => Element::Signed(4),
            "I64" => Element::Signed(8),
            "U8" => Element::Unsigned(1),
            "U16" => Element::Unsigned(2),
            "U32" => Element::Unsigned(4),
            "U64" => Element::Unsigned(8),
            "BOOL" => Element::Bool,
            _ => return None,
        })
    }

    /// The type that NumPy calls `descr`: byte order, kind, size.
    pub(super) fn of_numpy(descr: &str) -> Option<Element> {
        Some(match descr {
            "<f2" => Element::F16,
            "<f4" => Element::F32,
            "<f8" => Element::F64,
            "|i1" => Element::Signed(1),
            "<i2" => Element::Signed(2),
            "<i4" => Element::Signed(4),
            "<i8" => Element::Signed(8),
            "|u1" => Element::Unsigned(1),
            "<u2" => Element::Unsigned(2),
            "<u4" => Element::Unsigned(4),
            "<u8" => Element::Unsigned(8),
            "|b1" => Element::Bool,
            _ => return None,
        })
    }

    /// Bytes per number.
    pub(super) fn size(self) -> usize {
        match self {
            Element::Bool => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
            Element::Signed(size) | Element::Unsigned(size) => size,
        }
    }

    /// Appends the numbers in `bytes`, a multiple of [`Element::size`], to `values`.
    ///
    /// A finite number that would become infinite is an error: the reason is the result.
    pub(super) fn append(self, bytes: &[u8], values: &mut Vec<f32>) -> Result<(), String> {
        let u16s = || bytes.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
        match self {
            Element::F16 => values.extend(u16s().map(half)),
            Element::Bf16 => {
                values.extend(u16s().map(|bits| f32::from_bits(u32::from(bits) << 16)));
            }
            Element::F32 => {
                values.extend(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
            Element::F64 => {
                for &bytes in bytes.as_chunks().0 {
                    let (wide, value) =
                        (f64::from_le_bytes(bytes), f64::from_le_bytes(bytes) as f32);
                    if wide.is_finite() && value.is_infinite() {
                        return Err(format!("holds {wide:e}, beyond the range of f32"));
                    }
                    values.push(value);
                }
            }
            Element::Signed(_) | Element::Unsigned(_) => {
                values.extend(self.whole_numbers(bytes).into_iter().flatten().map(|n| n as f32));
            }
            Element::Bool => values.extend(bytes.iter().map(|&byte| f32::from(byte != 0))),
        }
        Ok(())
    }

    /// The numbers in `bytes` as they are; `None` if the type is not one of whole numbers.
    pub(crate) fn whole_numbers(self, bytes: &[u8]) -> Option<impl Iterator<Item = i128>> {
        let (size, signed) = match self {
            Element::Signed(size) => (size, true),
            Element::Unsigned(size) => (size, false),
            _ => return None,
        };
        Some(bytes.chunks_exact(size).map(move |bytes| whole(bytes, signed)))
    }
}

/// As NumPy calls it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::F16 => f.write_str("float16"),
            Element::Bf16 => f.write_str("bfloat16"),
            Element::F32 => f.write_str("float32"),
            Element::F64 => f.write_str("float64"),
            Element::Signed(size) => write!(f, "int{}", 8 * size),
            Element::Unsigned(size) => write!(f, "uint{}", 8 * size),
            Element::Bool => f.write_str("bool"),
        }
    }
}

/// A whole number of 1 to 8 bytes.
fn whole(bytes: &[u8], signed: bool) -> i128 {
    let number = bytes.iter().rev().fold(0, |number, &byte| number << 8 | i128::from(byte));
    let sign = 1 << (8 * bytes.len() - 1);
    if signed && number >= sign { number - 2 * sign } else { number }
}

/// IEEE 754 half precision, exactly: sign, 5 bits of exponent, 10 of fraction.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(element: Element, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::new();
        element.append(bytes, &mut values).unwrap();
        values
    }

    #[test]
    fn halves_are_exact() {
        let bits = [0x3c00_u16, 0xc000, 0x0001, 0x8001, 0x03ff, 0x7bff, 0x7c00, 0xfc00, 0x8000];
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let tiny = 2_f32.powi(-24);
        let inf = f32::INFINITY;
        let expected = [1.0, -2.0, tiny, -tiny, 1023.0 * tiny, 65504.0, inf, -inf, 0.0];
        assert_eq!(read(Element::F16, &bytes), expected);
        assert!(read(Element::F16, &[0, 0x80])[0].is_sign_negative());
        assert!(read(Element::F16, &[1, 0x7c])[0].is_nan());
        assert_eq!(read(Element::Bf16, &[0x80, 0x3f, 0x00, 0xbf]), [1.0, -0.5]);
    }

    #[test]
    fn whole_numbers_of_any_size() {
        assert_eq!(read(Element::Signed(1), &[0x80, 0x7f, 0xff]), [-128.0, 127.0, -1.0]);
        assert_eq!(read(Element::Signed(2), &[0xfe, 0xff]), [-2.0]);
        assert_eq!(read(Element::Signed(8), &i64::MIN.to_le_bytes()), [-(2_f32.powi(63))]);
        assert_eq!(read(Element::Unsigned(4), &u32::MAX.to_le_bytes()), [2_f32.powi(32)]);
        assert_eq!(read(Element::Bool, &[0, 1, 2]), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn doubles_are_rounded_but_not_to_infinity() {
        let bytes = [0.1_f64, f64::INFINITY, -1e-320].map(f64::to_le_bytes).concat();
        assert_eq!(read(Element::F64, &bytes), [0.1, f32::INFINITY, -0.0]);
        let error = Element::F64.append(&1e300_f64.to_le_bytes(), &mut Vec::new()).unwrap_err();
        assert_eq!(error, "holds 1e300, beyond the range of f32");
    }
}
