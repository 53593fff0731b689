//! Cyclic redundancy checks of 32 bits, a byte at a time with a table: the ones that PNG and
//! TensorBoard's event files ask for.

/// A check with one generator polynomial.
pub(crate) struct Crc32 {
    table: [u32; 256],
}

/// Of PNG and zlib: IEEE 802.3.
pub(crate) static CRC32: Crc32 = Crc32::new(0xedb8_8320);

/// Of TFRecord: Castagnoli's polynomial.
pub(crate) static CRC32C: Crc32 = Crc32::new(0x82f6_3b78);

impl Crc32 {
    /// For a polynomial with its bits reversed and the highest left out.
    const fn new(polynomial: u32) -> Self {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                // The remainder of a division in which subtraction is exclusive or.
                crc = (crc >> 1) ^ if crc & 1 == 1 { polynomial } else { 0 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        Crc32 { table }
    }

    /// The check of `bytes`.
    pub(crate) fn of(&self, bytes: &[u8]) -> u32 {
        !bytes
            .iter()
            .fold(!0, |crc: u32, &byte| (crc >> 8) ^ self.table[usize::from(crc as u8 ^ byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        // The "check" column of Greg Cook's catalogue of CRC algorithms.
        assert_eq!(CRC32.of(b"123456789"), 0xcbf4_3926);
        assert_eq!(CRC32C.of(b"123456789"), 0xe306_9283);
        assert_eq!((CRC32.of(b""), CRC32C.of(b"")), (0, 0));
    }
}
