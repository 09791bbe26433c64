//! The ways Nix writes bytes as text: hexadecimal, its own base-32, and base-64 in "SRI" hashes.

const BASE32: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits of either case.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Bytes from Nix's base-32, canonical forms only.
pub fn from_nix_base32(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; text.len() * 5 / 8];
    for (digit, char) in text.iter().rev().enumerate() {
        let value = BASE32.iter().position(|known| known == char)? as u16;
        let (byte, shift) = (digit * 5 / 8, digit * 5 % 8);
        let shifted = (value << shift).to_le_bytes();
        *bytes.get_mut(byte)? |= shifted[0];
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= shifted[1],
            None if shifted[1] == 0 => {}
            None => return None,
        }
    }
    Some(bytes)
}

/// Bytes from base-64 with its padding, canonical forms only.
pub fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for char in digits {
        bits = bits << 6 | BASE64.iter().position(|known| known == char)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// Nix's base-32: the bytes are one little-endian number, written most significant digit first
/// (Nix `src/libutil/hash.cc`).
pub fn nix_base32(bytes: &[u8]) -> String {
    let digits = (bytes.len() * 8).div_ceil(5);
    (0..digits)
        .rev()
        .map(|digit| {
            let (byte, shift) = (digit * 5 / 8, digit * 5 % 8);
            let low = u16::from(bytes[byte]);
            let high = u16::from(bytes.get(byte + 1).copied().unwrap_or(0));
            char::from(BASE32[usize::from((high << 8 | low) >> shift & 0x1f)])
        })
        .collect()
}

/// Base-64 with padding (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            if digit <= group.len() {
                text.push(char::from(BASE64[(bits >> (18 - 6 * digit) & 0x3f) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn base32_is_that_of_another_implementation(bytes: Vec<u8>) {
            prop_assert_eq!(nix_base32(&bytes), nix_derivation::nixbase32::encode(&bytes));
        }

        #[test]
        fn hexadecimal_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(from_hex(hex(&bytes).to_uppercase().as_bytes()), Some(bytes));
        }
    }

    proptest! {
        #[test]
        fn base32_and_base64_come_back(bytes: Vec<u8>) {
            prop_assert_eq!(from_nix_base32(nix_base32(&bytes).as_bytes()), Some(bytes.clone()));
            prop_assert_eq!(from_base64(base64(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn what_is_read_is_canonical(text in "[0-9a-z+/=A-Z]{0,24}") {
            if let Some(bytes) = from_base64(text.as_bytes()) {
                prop_assert_eq!(base64(&bytes), text.clone());
            }
            if let Some(bytes) = from_nix_base32(text.as_bytes()).filter(|bytes| nix_base32(bytes).len() == text.len()) {
                prop_assert_eq!(nix_base32(&bytes), text);
            }
        }
    }

    #[test]
    fn base64_pads_as_the_standard_says() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn odd_or_foreign_digits_are_not_hexadecimal() {
        assert_eq!(from_hex(b"abc"), None);
        assert_eq!(from_hex(b"zz"), None);
        assert_eq!(from_hex("٣٣".as_bytes()), None);
    }
}
