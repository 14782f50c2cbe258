//! What a RST says of its own reason. TCP lets it carry data (RFC 9293, 3.5.3): text, as F5 BIG-IP writes it when told to, or
//! the eight bytes of draft-ietf-tcpm-rst-diagnostic-payload; Multipath TCP has an option for it (RFC 8684, 3.6).

/// Bytes that are kept of a RST's data.
pub const MOST: usize = 64;

/// A reason that stands in the packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stated {
    /// A code of the IANA registry, or of an enterprise (IANA's Private Enterprise Numbers) where that is not 0.
    Diagnostic { code: u16, enterprise: u32 },
    /// As it was sent, at most [`MOST`] bytes; not escaped.
    Text(String),
    /// Of the MP_TCPRST option.
    Mptcp(u8),
}

/// Reads it from a TCP header with options and what follows it.
pub fn read(tcp: &[u8]) -> Option<Stated> {
    const HEADER: usize = 20;
    let length = usize::from(tcp.get(12)? >> 4) * 4;
    let data = tcp.get(length.max(HEADER)..).unwrap_or_default();
    let of_data = data.get(..data.len().min(MOST)).and_then(|data| diagnostic(data).or_else(|| text(data)));
    of_data.or_else(|| mptcp(tcp.get(HEADER..length)?))
}

/// Exactly eight bytes: the magic number, the code, the enterprise.
fn diagnostic(data: &[u8]) -> Option<Stated> {
    const MAGIC: [u8; 2] = [0x33, 0xaa];
    let data: &[u8; 8] = data.try_into().ok().filter(|data: &&[u8; 8]| data.starts_with(&MAGIC))?;
    let [_, _, high, low, enterprise @ ..] = *data;
    Some(Stated::Diagnostic { code: u16::from_be_bytes([high, low]), enterprise: u32::from_be_bytes(enterprise) })
}

/// Printable, but for what ends a line or fills up.
fn text(data: &[u8]) -> Option<Stated> {
    const SHORTEST: usize = 4;
    let text = std::str::from_utf8(data).ok()?.trim_end_matches('\0').trim();
    let readable = text.len() >= SHORTEST && !text.chars().any(char::is_control);
    readable.then(|| Stated::Text(text.to_owned()))
}

/// The reason in an MP_TCPRST option: kind 30, length 4, subtype 8, flags, reason.
fn mptcp(mut options: &[u8]) -> Option<Stated> {
    const NO_OPERATION: u8 = 1;
    const MPTCP: u8 = 30;
    const SUBTYPE_RST: u8 = 8;
    loop {
        match options {
            [0, ..] | [] => return None,
            [NO_OPERATION, rest @ ..] => options = rest,
            [MPTCP, 4, subtype, reason, ..] if subtype >> 4 == SUBTYPE_RST => return Some(Stated::Mptcp(*reason)),
            // An option that says it is shorter than its own head would never end.
            [_, length, ..] if *length >= 2 => options = options.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP header with these options, padded, and data.
    fn segment(options: &[u8], data: &[u8]) -> Vec<u8> {
        let words = options.len().div_ceil(4);
        let mut tcp = vec![0; 20 + words * 4];
        tcp[12] = ((5 + words) << 4) as u8;
        tcp[20..20 + options.len()].copy_from_slice(options);
        tcp.extend_from_slice(data);
        tcp
    }

    #[test]
    fn a_diagnostic_payload_has_eight_bytes_and_its_magic_number() {
        let stated = read(&segment(&[], &[0x33, 0xaa, 0, 14, 0, 0, 0, 0]));
        assert_eq!(stated, Some(Stated::Diagnostic { code: 14, enterprise: 0 }));
        assert_eq!(read(&segment(&[], &[0x33, 0xaa, 0, 14, 0, 0, 0])), None, "seven are none");
    }

    #[test]
    fn text_is_kept_up_to_a_limit_and_what_is_no_text_is_not() {
        let text = |data: &[u8]| read(&segment(&[1, 1, 1, 1], data));
        assert_eq!(text(b"[F5RST: No local listener]\0"), Some(Stated::Text("[F5RST: No local listener]".to_owned())));
        let Some(Stated::Text(long)) = text(&[b'a'; 900]) else { panic!("text") };
        assert_eq!(long.len(), MOST);
        assert_eq!(text(&[1, 2, 3, 4, 5]), None);
        assert_eq!(text(b"\x1b[2J\x1b[H and more"), None, "nothing that moves a cursor");
        assert_eq!(text(b""), None);
    }

    #[test]
    fn multipath_tcp_says_it_in_an_option() {
        assert_eq!(read(&segment(&[1, 1, 30, 4, 0x80, 6], b"")), Some(Stated::Mptcp(6)));
        assert_eq!(read(&segment(&[30, 4, 0x70, 6], b"")), None, "another subtype");
        assert_eq!(read(&segment(&[30, 0, 0x80, 6], b"")), None, "an option without a length");
        let whole = segment(&[1, 1, 30, 4, 0x80, 6], &[0x33, 0xaa, 0, 14, 0, 0, 0, 0]);
        for cut in 0..whole.len() {
            let _ = read(&whole[..cut]);
        }
    }
}
