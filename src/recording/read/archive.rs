//! The compressed archive that a recording is, read as a stream under caps.

use std::io::{self, BufRead, Chain, Cursor, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::{RecordingProblem, Result};

const BLOCK: usize = 512;

/// Bounds on what a recording may make us hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub total: u64,
    pub entries: usize,
    pub entry: u64,
}

/// The tar archive inside, read block by block. No size that the file claims is ever allocated.
pub(super) struct Archive<R> {
    gzip: GzDecoder<Chain<Cursor<[u8; 2]>, R>>,
    total: u64,
    limits: Limits,
}

impl<R: BufRead> Archive<R> {
    /// Takes the first two bytes, which tell whether it is gzip data (RFC 1952, 2.3.1).
    pub fn open(mut reader: R, limits: Limits) -> Result<Self> {
        let mut magic = [0; 2];
        reader.read_exact(&mut magic).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => RecordingProblem::NotGzip,
            _ => RecordingProblem::Read(error),
        })?;
        if magic != [0x1f, 0x8b] {
            return Err(RecordingProblem::NotGzip);
        }
        Ok(Self { gzip: GzDecoder::new(Cursor::new(magic).chain(reader)), total: 0, limits })
    }

    /// Fills the buffer as far as the data goes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.gzip.read(rest) {
                Ok(0) => break,
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.problem(error)),
            }
        }
        self.total += filled as u64;
        if self.total > self.limits.total {
            return Err(RecordingProblem::TooLarge { limit: format!("{} bytes", self.limits.total) });
        }
        Ok(filled)
    }

    fn problem(&self, error: io::Error) -> RecordingProblem {
        match error.kind() {
            ErrorKind::UnexpectedEof => RecordingProblem::Truncated(format!("after {} bytes of content", self.total)),
            ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                RecordingProblem::Damaged(format!("{error}, after {} bytes of content", self.total))
            }
            _ => RecordingProblem::Read(error),
        }
    }

    /// Name and size of the next entry; `None` at the end of the archive.
    pub fn header(&mut self, first: bool) -> Result<Option<(String, u64)>> {
        let at = self.total;
        let broken = |what: &str| match first {
            true => RecordingProblem::NotTar,
            false => RecordingProblem::Damaged(format!("{what} at byte {at} of the content")),
        };
        let mut header = tar::Header::new_old();
        match self.fill(header.as_mut_bytes())? {
            BLOCK => {}
            _ if first => return Err(RecordingProblem::NotTar),
            _ => return Err(RecordingProblem::Truncated(format!("after {} bytes of content", self.total))),
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum is taken with its own field as spaces, tar(5).
        let sum: u32 = header
            .as_bytes()
            .iter()
            .zip(0..)
            .map(|(byte, at)| match at {
                148..156 => u32::from(b' '),
                _ => u32::from(*byte),
            })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(broken("no valid tar header"));
        }
        let path = header.path_bytes();
        let entry = String::from_utf8_lossy(&path).into_owned();
        let refuse = |why| Err(RecordingProblem::Unsafe { entry: entry.clone(), why });
        if header.entry_type() != tar::EntryType::Regular {
            return refuse("it is not a plain file");
        }
        if entry.starts_with('/') {
            return refuse("its name is absolute");
        }
        if entry.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("its name leads elsewhere");
        }
        if std::str::from_utf8(&path).is_err() || entry.chars().any(char::is_control) {
            return refuse("its name is not plain text");
        }
        let size = header.entry_size().map_err(|_| broken("no valid size in the tar header"))?;
        Ok(Some((entry, size)))
    }

    pub fn body(&mut self, name: &str, size: u64) -> Result<Vec<u8>> {
        if size > self.limits.entry {
            return Err(RecordingProblem::TooLarge { limit: format!("{} bytes in entry {name:?}", self.limits.entry) });
        }
        let mut body = Vec::new();
        let mut piece = [0; 16 * BLOCK];
        let mut left = size.next_multiple_of(BLOCK as u64);
        while left > 0 {
            let want = left.min(piece.len() as u64) as usize;
            let got = self.fill(piece.get_mut(..want).unwrap_or_default())?;
            if got < want {
                return Err(RecordingProblem::Truncated(format!("in entry {name:?}")));
            }
            body.extend_from_slice(piece.get(..got).unwrap_or_default());
            left -= got as u64;
        }
        body.truncate(size as usize);
        body.shrink_to_fit();
        Ok(body)
    }

    /// Only padding may follow the archive, only the checksum the padding, and nothing the checksum.
    pub fn finish(mut self) -> Result<()> {
        let mut padding = [0; BLOCK];
        // A tar record is 20 blocks; some writers pad the archive to whole records.
        for _ in 0..64 {
            let got = self.fill(&mut padding)?;
            if padding.get(..got).unwrap_or_default().iter().any(|byte| *byte != 0) {
                return Err(RecordingProblem::TrailingGarbage);
            }
            if got < BLOCK {
                let mut rest = self.gzip.into_inner();
                return match rest.fill_buf() {
                    Ok([]) => Ok(()),
                    Ok(_) => Err(RecordingProblem::TrailingGarbage),
                    Err(error) => Err(RecordingProblem::Read(error)),
                };
            }
        }
        Err(RecordingProblem::TrailingGarbage)
    }
}
