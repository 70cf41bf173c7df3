//! Takes a body in: checksummed on the way, cut or spoilt if that is its fate.

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::Fault;

/// Bytes with their checksum; the bytes themselves only where somebody needs them.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) size: u64,
    pub(crate) crc64: u64,
    pub(crate) bytes: Option<Bytes>,
}

impl Content {
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self { size: text.len() as u64, crc64: crc64(text.as_bytes()), bytes: Some(Bytes::copy_from_slice(text.as_bytes())) }
    }
}

/// CRC-64/NVME, the polynomial of `x-ms-content-crc64`.
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// The body did not arrive as a whole; so many bytes did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken(pub(crate) u64);

/// Reads a body to its end.
pub(crate) async fn take(body: &mut Incoming, length: u64, keep: bool, fault: Option<Fault>) -> Result<Content, Broken> {
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut kept = BytesMut::with_capacity(if keep { usize::try_from(length).unwrap_or_default() } else { 0 });
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Broken(size))?;
        let Ok(data) = frame.into_data() else { continue };
        let data = spoil(data, size, fault);
        digest.update(&data);
        if keep {
            kept.extend_from_slice(&data);
        }
        size += data.len() as u64;
        if let Some(Fault::CutBody(after)) = fault
            && size > after
        {
            return Err(Broken(size));
        }
    }
    Ok(Content { size, crc64: digest.finalize(), bytes: keep.then(|| kept.freeze()) })
}

/// Flips the bit of [`Fault::FlipBit`] if it is in `data`, which starts at `start`.
fn spoil(data: Bytes, start: u64, fault: Option<Fault>) -> Bytes {
    let Some(Fault::FlipBit(bit)) = fault else { return data };
    let place = (bit / 8).checked_sub(start).and_then(|place| usize::try_from(place).ok()).filter(|place| *place < data.len());
    let Some(place) = place else { return data };
    let mut data = BytesMut::from(data);
    data[place] ^= 1 << (bit % 8);
    data.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_is_flipped_in_the_piece_that_has_it() {
        let piece = Bytes::from_static(&[0; 4]);
        assert_eq!(spoil(piece.clone(), 8, Some(Fault::FlipBit(8 * 9 + 3))), [0_u8, 8, 0, 0].as_slice());
        for (start, fault) in [(8, Some(Fault::FlipBit(8 * 7))), (8, Some(Fault::FlipBit(8 * 12))), (0, None)] {
            assert_eq!(spoil(piece.clone(), start, fault), piece);
        }
    }
}
