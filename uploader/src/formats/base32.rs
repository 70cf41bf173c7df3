//! Lower-case base32 whose order as text is the order of the bytes (RFC 4648 section 7, "base32hex", without padding).

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// `value` in exactly `digits` digits; bits that do not fit are cut off at the top.
pub(super) fn encode(value: u128, digits: u32) -> String {
    (0..digits).rev().map(|digit| ALPHABET[((value >> (5 * digit)) & 31) as usize] as char).collect()
}

/// The value of `text`, or `None` if a byte is not of the alphabet.
pub(super) fn decode(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0_u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'v' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 5 | u128::from(digit))
    })
}
