//! The packets of a capture file as a stream: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), either byte
//! order, micro- or nanoseconds, several interfaces.

use std::io::{self, Cursor, Read};
use std::time::Duration;

use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{PcapBlockOwned, PcapError, create_reader};

/// The largest block that is read: no packet is longer than 256 KiB (MAXIMUM_SNAPLEN of libpcap), other blocks are passed over.
const BLOCK: usize = 1 << 20;
/// The first bytes of a pipe come in small pieces, and the head of the file has to be whole.
const HEAD: usize = 64 << 10;
/// Interfaces of one section that are told apart.
const INTERFACES: usize = 4_096;
/// Later times are no times: the year 2243. A clock that was never set runs below zero.
const LATEST: Duration = Duration::from_secs(1 << 33);

/// One packet as it was captured.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Number in the file, from 1, as tshark numbers frames.
    pub number: u64,
    /// Since the Unix epoch; `None` where the file has no time for it.
    pub at: Option<Duration>,
    /// LINKTYPE_ number.
    pub link: u32,
    pub interface: u32,
    pub data: &'a [u8],
    /// Bytes on the wire that were not captured.
    pub cut: u32,
}

/// How the file ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// Packets that were read whole.
    pub packets: u64,
    pub format: &'static str,
    /// Why nothing behind the last packet was read, in words; `None` where the file is whole.
    pub broken: Option<String>,
}

/// It is no capture, or of a form that is not read.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("its head is {0}")]
    Head(&'static str),
}

/// Whether the bytes begin a capture.
pub fn is_capture(head: &[u8]) -> bool {
    const MAGIC: [[u8; 4]; 7] = [
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x34, 0xcd, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xcd, 0x34],
        [0x0a, 0x0d, 0x0d, 0x0a],
    ];
    MAGIC.iter().any(|magic| head.starts_with(magic))
}

#[derive(Clone, Copy)]
struct Interface {
    link: u32,
    snaplen: u32,
    /// Ticks a second, and seconds that are added.
    resolution: Option<u64>,
    offset: i64,
}

impl Interface {
    fn time(&self, ticks: u64) -> Option<Duration> {
        let resolution = self.resolution.filter(|resolution| *resolution > 0)?;
        let seconds = (ticks / resolution).checked_add_signed(self.offset)?;
        let nanos = u128::from(ticks % resolution) * 1_000_000_000 / u128::from(resolution);
        Some(Duration::new(seconds, u32::try_from(nanos).ok()?)).filter(|time| *time < LATEST)
    }
}

/// Hands over each packet. What is behind a damaged or cut record is not read, and said in the [`Ending`].
///
/// # Errors
/// The head of the file is damaged or of another kind, or the reader fails.
pub fn read<'r>(mut input: Box<dyn Read + Send + 'r>, each: &mut dyn FnMut(&Frame<'_>)) -> Result<Ending, Problem> {
    let mut head = Vec::new();
    input.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let ng = head.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]);
    if !ng && (head.len() < 24 || !is_capture(&head)) {
        return Err(Problem::Head(if is_capture(&head) { "cut off" } else { "not that of a capture" }));
    }
    let failed = std::sync::Arc::new(std::sync::Mutex::new(None));
    let whole = Cursor::new(head).chain(Watched { input, failed: std::sync::Arc::clone(&failed) });
    let mut reader = create_reader(BLOCK, whole).map_err(|_| Problem::Head("damaged, or cut off"))?;
    let mut ending = Ending { format: if ng { "pcapng" } else { "pcap" }, ..Ending::default() };
    let mut interfaces: Vec<Interface> = Vec::new();
    let (mut nanos, mut legacy_link) = (false, 0);
    let mut stuck = 0;
    loop {
        let consumed = match reader.next() {
            Ok((size, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        nanos = header.is_nanosecond_precision();
                        // The upper bits say how long the frame check sequence is.
                        legacy_link = u32::from_ne_bytes(header.network.0.to_ne_bytes()) & 0xffff;
                    }
                    PcapBlockOwned::Legacy(packet) => {
                        ending.packets += 1;
                        let below = if nanos { packet.ts_usec } else { packet.ts_usec.saturating_mul(1_000) };
                        let at = Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(below.into());
                        let data = packet.data;
                        each(&Frame {
                            number: ending.packets,
                            at: Some(at),
                            link: legacy_link,
                            interface: 0,
                            data,
                            cut: packet.origlen.saturating_sub(length(data)),
                        });
                    }
                    PcapBlockOwned::NG(block) => ng_block(&block, &mut interfaces, &mut ending, each),
                }
                size
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => 0,
            Err(PcapError::UnexpectedEof) => {
                ending.broken = Some(after(&ending, "is cut off"));
                break;
            }
            Err(PcapError::BufferTooSmall) => {
                ending.broken = Some(after(&ending, "holds a record that claims more than 1 MiB"));
                break;
            }
            Err(_) => {
                ending.broken = Some(after(&ending, "holds a damaged record"));
                break;
            }
        };
        if consumed == 0 {
            let before = reader.data().len();
            let refilled = reader.refill().is_ok();
            // Nothing more comes, or a damaged length would hold the loop.
            stuck = if reader.data().len() > before { 0 } else { stuck + 1 };
            if !refilled || stuck > 2 {
                ending.broken = Some(after(&ending, "is cut off"));
                break;
            }
            continue;
        }
        reader.consume(consumed);
    }
    let failed = failed.lock().ok().and_then(|mut failed| failed.take());
    match failed {
        Some(error) if ending.packets == 0 => Err(Problem::Io(error)),
        Some(error) => {
            ending.broken = Some(format!("after packet {} it cannot be read: {error}", ending.packets));
            Ok(ending)
        }
        None => Ok(ending),
    }
}

fn after(ending: &Ending, what: &str) -> String {
    match ending.packets {
        0 => format!("it {what} before its first packet"),
        packets => format!("it {what} after packet {packets}: what follows was not read"),
    }
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

fn ng_block(block: &Block<'_>, interfaces: &mut Vec<Interface>, ending: &mut Ending, each: &mut dyn FnMut(&Frame<'_>)) {
    match block {
        Block::SectionHeader(_) => interfaces.clear(),
        Block::InterfaceDescription(interface) if interfaces.len() < INTERFACES => interfaces.push(Interface {
            link: u32::from_ne_bytes(interface.linktype.0.to_ne_bytes()),
            snaplen: interface.snaplen,
            resolution: interface.ts_resolution(),
            offset: interface.ts_offset(),
        }),
        Block::EnhancedPacket(packet) => {
            ending.packets += 1;
            let Some(interface) = interfaces.get(packet.if_id as usize) else { return };
            let data = packet.packet_data();
            each(&Frame {
                number: ending.packets,
                at: interface.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low)),
                link: interface.link,
                interface: packet.if_id,
                data,
                cut: packet.origlen.saturating_sub(length(data)),
            });
        }
        Block::SimplePacket(packet) => {
            ending.packets += 1;
            let Some(interface) = interfaces.first() else { return };
            let most = if interface.snaplen == 0 { packet.origlen } else { interface.snaplen.min(packet.origlen) };
            let data = packet.data.get(..most as usize).unwrap_or(packet.data);
            each(&Frame {
                number: ending.packets,
                at: None,
                link: interface.link,
                interface: 0,
                data,
                cut: packet.origlen.saturating_sub(length(data)),
            });
        }
        _ => {}
    }
}

/// Keeps the error that the parser turns into "cannot be read".
struct Watched<R> {
    input: R,
    failed: std::sync::Arc<std::sync::Mutex<Option<io::Error>>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if let Ok(mut failed) = self.failed.lock() {
                        *failed = Some(error);
                    }
                    // To the parser it is the end: what was read before is whole.
                    return Ok(0);
                }
                read => return read,
            }
        }
    }
}
