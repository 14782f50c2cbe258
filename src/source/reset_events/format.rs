//! The `format` file of a tracepoint: where its fields are and what its numbers are called.
//!
//! Neither offsets nor the numbers of `enum sk_rst_reason` are ABI: both are taken from the running kernel.

use std::collections::BTreeMap;

use crate::value::{ParseError, outside};

/// Byte order of the machine that wrote the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    #[default]
    Little,
    Big,
}

impl Order {
    /// Writes the low bytes of a number into a field of up to 8 bytes.
    pub fn put(self, number: u64, field: &mut [u8]) {
        let byte = |place: u32| number.checked_shr(8 * place).unwrap_or(0) as u8;
        match self {
            Order::Little => field.iter_mut().zip(0..).for_each(|(to, place)| *to = byte(place)),
            Order::Big => field.iter_mut().rev().zip(0..).for_each(|(to, place)| *to = byte(place)),
        }
    }

    /// An unsigned number of up to 8 bytes.
    pub fn number(self, bytes: &[u8]) -> Option<u64> {
        // A few of these per record: in a storm they count.
        let little = match *bytes {
            [a] => u64::from(a),
            [a, b] => u64::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ if bytes.is_empty() || bytes.len() > 8 => return None,
            _ => bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        Some(match self {
            Order::Little => little,
            Order::Big => little.swap_bytes() >> (64 - 8 * bytes.len()),
        })
    }
}

/// Where a field lies in the record, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub offset: usize,
    pub size: usize,
}

impl Field {
    pub fn bytes(self, raw: &[u8]) -> Option<&[u8]> {
        raw.get(self.offset..self.offset.checked_add(self.size)?)
    }

    pub fn number(self, raw: &[u8], order: Order) -> Option<u64> {
        order.number(self.bytes(raw)?)
    }
}

/// One tracepoint's layout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Format {
    /// Without the subsystem: `tcp_send_reset`.
    pub name: String,
    /// The number that perf_event_open takes as `config` and that records carry as `common_type`.
    pub id: u64,
    pub fields: BTreeMap<String, Field>,
    /// Field name to value to symbol, from `__print_symbolic` in the print format, prefixes removed.
    pub symbols: BTreeMap<String, BTreeMap<u64, String>>,
}

impl Format {
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut format = Format::default();
        for (index, line) in text.lines().enumerate() {
            let broken = |problem: String| ParseError::new("tracepoint format", Some(index + 1), problem);
            if let Some(name) = line.strip_prefix("name:") {
                name.trim().clone_into(&mut format.name);
            } else if let Some(id) = line.strip_prefix("ID:") {
                format.id = id.trim().parse().map_err(|_| broken(format!("ID {id:?} is not a number")))?;
            } else if let Some(rest) = line.trim_start().strip_prefix("field:") {
                let (name, field) =
                    parse_field(rest).ok_or_else(|| broken(format!("field {rest:?} not understood")))?;
                format.fields.insert(name.to_owned(), field);
            } else if let Some(print) = line.strip_prefix("print fmt:") {
                format.symbols = parse_symbols(print);
            }
        }
        match format.name.is_empty() || format.fields.is_empty() {
            true => Err(ParseError::new("tracepoint format", None, "no name or no fields")),
            false => Ok(format),
        }
    }

    pub fn field(&self, name: &str) -> Option<Field> {
        self.fields.get(name).copied()
    }

    pub fn symbol(&self, field: &str, value: u64) -> Option<&str> {
        self.symbols.get(field)?.get(&value).map(String::as_str)
    }
}

/// `__u8 saddr[28];\toffset:32;\tsize:28;\tsigned:0;`
fn parse_field(text: &str) -> Option<(&str, Field)> {
    let mut parts = text.split(';').map(str::trim);
    let declaration = parts.next()?;
    let name = declaration.split('[').next()?.split_whitespace().last()?.trim_start_matches('*');
    let (mut offset, mut size) = (None, None);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", value)) => offset = value.parse().ok(),
            Some(("size", value)) => size = value.parse().ok(),
            _ => {}
        }
    }
    Some((name, Field { offset: offset?, size: size? })).filter(|(name, _)| !name.is_empty())
}

fn parse_symbols(print: &str) -> BTreeMap<String, BTreeMap<u64, String>> {
    let mut all = BTreeMap::new();
    for call in print.split("__print_symbolic(").skip(1) {
        let Some((argument, mut rest)) = call.split_once(',') else { continue };
        let Some((_, field)) = argument.rsplit_once("REC->") else { continue };
        let mut table = BTreeMap::new();
        // `{ 14, "TCP_STATE" }`, up to the closing parenthesis of the call.
        while let Some((pair, more)) =
            rest.trim_start_matches([',', ' ']).strip_prefix('{').and_then(|r| r.split_once('}'))
        {
            rest = more;
            let Some((value, symbol)) = pair.split_once(',') else { continue };
            let value = value.trim();
            let number = match value.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => value.parse(),
            };
            let symbol = symbol.trim().trim_matches('"');
            let symbol =
                ["SK_RST_REASON_", "SKB_DROP_REASON_"].iter().find_map(|p| symbol.strip_prefix(p)).unwrap_or(symbol);
            // States appear with names instead of numbers; those are ABI and known without this table.
            if let Ok(number) = number {
                table.insert(number, outside::bounded(symbol, outside::NAME));
            }
        }
        if !table.is_empty() {
            all.insert(field.trim_end_matches(')').trim().to_owned(), table);
        }
    }
    all
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Recorded on Linux 6.18.
    pub const SEND_6_18: &str = include_str!("testdata/tcp_send_reset-6.18.txt");
    pub const RECEIVE_6_18: &str = include_str!("testdata/tcp_receive_reset-6.18.txt");
    pub const STATE_6_18: &str = include_str!("testdata/inet_sock_set_state-6.18.txt");
    /// Linux 4.16: no family, no reason. Laid out from include/trace/events/tcp.h of that version, not recorded.
    pub const SEND_4_16: &str = include_str!("testdata/tcp_send_reset-4.16.txt");
    /// Linux 5.15: with family, no reason. Laid out from the source as well.
    pub const SEND_5_15: &str = include_str!("testdata/tcp_send_reset-5.15.txt");

    #[test]
    fn the_running_layouts_are_read_by_name() {
        let send = Format::parse(SEND_6_18).unwrap();
        assert_eq!((send.name.as_str(), send.id), ("tcp_send_reset", 2280));
        assert_eq!(send.field("saddr"), Some(Field { offset: 32, size: 28 }));
        assert_eq!(send.field("reason"), Some(Field { offset: 28, size: 4 }));
        assert_eq!(send.symbol("reason", 11), Some("TCP_ABORT_ON_CLOSE"));
        assert_eq!(send.symbol("reason", 99), None);
        let receive = Format::parse(RECEIVE_6_18).unwrap();
        assert_eq!(receive.field("sock_cookie"), Some(Field { offset: 64, size: 8 }));
        let state = Format::parse(STATE_6_18).unwrap();
        assert_eq!(state.symbol("protocol", 6), Some("IPPROTO_TCP"));
    }

    #[test]
    fn older_layouts_lack_fields_and_say_so() {
        let old = Format::parse(SEND_4_16).unwrap();
        assert_eq!((old.field("reason"), old.field("family")), (None, None));
        assert!(old.field("saddr_v6").is_some());
        let middle = Format::parse(SEND_5_15).unwrap();
        assert_eq!(middle.field("reason"), None);
        assert!(middle.field("family").is_some() && middle.field("state").is_some());
    }

    #[test]
    fn damage_names_the_line() {
        let text = SEND_6_18.replace("offset:16;", "offset:x;");
        let error = Format::parse(&text).unwrap_err();
        assert_eq!(error.line, Some(10), "{error}");
        assert!(Format::parse("").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}", tail in "(\tfield:[a-z \\[\\]*]{0,12};\toffset:[0-9]{0,20};\n|print fmt: __print_symbolic\\(REC->[a-z]{0,3}, [{}\", 0-9a-zA-Z]{0,30}\n){0,5}") {
            let _ = Format::parse(&format!("{text}\n{tail}"));
        }

        #[test]
        fn numbers_have_both_orders(value in any::<u64>(), size in 1usize..=8) {
            let masked = if size == 8 { value } else { value & ((1 << (8 * size)) - 1) };
            prop_assert_eq!(Order::Little.number(&value.to_le_bytes()[..size]), Some(masked));
            prop_assert_eq!(Order::Big.number(&value.to_be_bytes()[8 - size..]), Some(masked));
        }
    }
}
