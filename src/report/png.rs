//! Small pictures as data URIs: PNG without compression, and base64.
//!
//! PNG wants a zlib stream, and zlib allows blocks that are merely stored. The pictures here have a
//! few hundred pixels; what compression would save is less than the code to do it.

use crate::crc::CRC32;

/// A picture of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) width: usize,
    pub(super) height: usize,
    /// `[height, width, 3]`: red, green, blue.
    pub(super) pixels: Vec<u8>,
}

impl Image {
    /// The picture as the address of an `<img>`.
    pub(super) fn data_uri(&self) -> String {
        format!("data:image/png;base64,{}", base64(&self.png()))
    }

    fn png(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        // Eight bits, colour type 2 (RGB), and the only compression, filtering and order of rows.
        header.extend([8, 2, 0, 0, 0]);
        let mut rows = Vec::new();
        for row in self.pixels.chunks_exact(3 * self.width) {
            rows.push(0); // not filtered
            rows.extend_from_slice(row);
        }
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        chunk(&mut png, b"IHDR", &header);
        chunk(&mut png, b"IDAT", &stored(&rows));
        chunk(&mut png, b"IEND", &[]);
        png
    }
}

/// Length, kind, content, check of kind and content.
fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    png.extend((content.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend(kind);
    png.extend(content);
    let check = CRC32.of(&png[start..]);
    png.extend(check.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951, section 3.2.4).
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = bytes.chunks(usize::from(u16::MAX));
    let last = blocks.len().saturating_sub(1);
    for (at, block) in blocks.enumerate() {
        let length = block.len() as u16;
        stream.push(u8::from(at == last));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    stream.extend(adler32(bytes).to_be_bytes());
    stream
}

/// The check of zlib: a sum, and a sum of the sums.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | three.get(i).map_or(0, |&b| u32::from(b)));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standard() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (plain, coded) in pairs {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn adler_of_the_usual_word() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[cfg(feature = "png")]
    #[test]
    fn another_decoder_reads_the_same_pixels() {
        // More than one stored block.
        let (width, height) = (200, 130);
        let pixels: Vec<u8> = (0..3 * width * height).map(|i| (i * i % 251) as u8).collect();
        let image = Image { width, height, pixels };
        let mut reader = png::Decoder::new(std::io::Cursor::new(image.png())).read_info().unwrap();
        let mut read = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut read).unwrap();
        assert_eq!((info.width as usize, info.height as usize), (width, height));
        assert_eq!(read, image.pixels);
    }
}
