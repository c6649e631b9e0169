//! One file on its way: where it was left, what its lines have said, and what comes next.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use fleetlog_formats::{Body, follow, follow_body};
use fleetlog_schemas::record::{Route, StreamContext};
use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Checkpoint, Receiver, identify, identify_whole};
use crate::chunk::{Chunk, ChunkReader, LastLine, Portion};
use crate::courier::{Courier, Delivered, Parcel};
use crate::error::ShipError;
use crate::ship::{Options, Outcome, Progress};
use crate::sniff::{Framing, Target, sniff};

/// Bytes of a file's beginning that are looked at.
const HEAD_BYTES: u64 = 64 * 1024;

/// A file that is being shipped.
#[derive(Debug)]
pub(crate) struct Shipment {
    path: PathBuf,
    /// Closed while nobody writes to it.
    file: Option<File>,
    /// Device and inode: a file put in its place is another.
    place: (u64, u64),
    framing: Framing,
    target: Target,
    checkpoint: Checkpoint,
    context: StreamContext,
    receiver: Receiver,
    pub(crate) outcome: Outcome,
}

impl Shipment {
    /// Opens a file where an earlier run left it.
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self, ShipError> {
        let unreadable = |source| ShipError::Read { path: path.to_owned(), source };
        let identity = path.canonicalize().map_err(unreadable)?;
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mut head = head_of(&mut file, options.limits.line_bytes).map_err(unreadable)?;
        let (framing, target) = sniff(&head, options.target);
        let whole = matches!(framing, Framing::Whole | Framing::Protobuf);
        if whole {
            file.by_ref()
                .take(options.limits.body_bytes as u64)
                .read_to_end(&mut head)
                .map_err(unreadable)?;
        }
        let (hash, head_len) = if whole { identify_whole(&head) } else { identify(&head) };
        let fresh = Checkpoint { path: identity, head: hash, head_len, ..Checkpoint::default() };
        let receiver = Receiver::new(&options.url, &options.key);
        let earlier = options.checkpoints.as_ref().filter(|_| !options.restart);
        let checkpoint = earlier
            .and_then(|store| store.load(&fresh.path, &receiver, &head))
            // A document is known by all of it, and none is longer than the file itself.
            .filter(|earlier| earlier.offset <= metadata.len() && (!whole || earlier.head_len == head_len))
            .unwrap_or(fresh);
        let outcome = Outcome {
            resumed_at: checkpoint.offset,
            refused_before: checkpoint.refused,
            recognised: target != Target::Raw || options.target.is_some(),
            ..Outcome::default()
        };
        let mut shipment = Self {
            path: path.to_owned(),
            place: place(&metadata),
            context: StreamContext::default(),
            file: Some(file),
            framing,
            target,
            checkpoint,
            receiver,
            outcome,
        };
        shipment.context = shipment.context_so_far(options).map_err(unreadable)?;
        Ok(shipment)
    }

    /// What the lines acknowledged have said: as remembered, else read again.
    fn context_so_far(&mut self, options: &Options) -> io::Result<StreamContext> {
        let fresh = || StreamContext {
            stream_id: self.stream_id(),
            format: options.format.clone().unwrap_or_default(),
            ..fleetlog_formats::place(&self.path)
        };
        if let Some(remembered) = self.checkpoint.stream.clone() {
            return Ok(remembered);
        }
        let mut context = fresh();
        if self.checkpoint.offset > 0 && self.target == Target::Raw && self.framing == Framing::Lines {
            let mut file = self.handle()?;
            file.rewind()?;
            let mut before = BufReader::new(file).take(self.checkpoint.offset);
            let mut line = Vec::new();
            // A line that was longer than may be sent was not sent; it says nothing here either.
            while before.by_ref().take(options.limits.line_bytes as u64).read_until(b'\n', &mut line)? > 0 {
                follow(&mut context, &line);
                line.clear();
            }
        }
        Ok(context)
    }

    /// The same as long as the file is the same; a document stays the same stream when it is written anew.
    fn stream_id(&self) -> String {
        let path = xxh3_64(self.checkpoint.path.as_os_str().as_encoded_bytes());
        let head = if self.is_lines() { self.checkpoint.head } else { 0 };
        format!("{:016x}", path ^ head)
    }

    fn is_lines(&self) -> bool {
        matches!(self.framing, Framing::Lines | Framing::BodyPerLine)
    }

    /// Bytes acknowledged.
    pub(crate) fn offset(&self) -> u64 {
        self.checkpoint.offset
    }

    /// The file's size.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.handle()?.metadata()?.len())
    }

    /// A handle of its own on the file.
    fn handle(&self) -> io::Result<File> {
        match &self.file {
            Some(file) => file.try_clone(),
            None => File::open(&self.path),
        }
    }

    /// Whether the file is kept open.
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Lets go of the file; it is opened again when something is to be read of it.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Whether `found` at the file's path is this file still, neither replaced nor cut off nor written anew.
    pub(crate) fn is(&self, found: &Metadata) -> bool {
        place(found) == self.place
            && found.len() >= self.checkpoint.offset
            && self.handle().is_ok_and(|file| self.begins_as_known(&file, found.len()))
    }

    fn begins_as_known(&self, file: &File, size: u64) -> bool {
        let mut head = vec![0; usize::try_from(self.checkpoint.head_len).unwrap_or(0)];
        file.read_exact_at(&mut head, 0).is_ok()
            && xxh3_64(&head) == self.checkpoint.head
            && (self.is_lines() || size == self.checkpoint.head_len)
    }

    /// Whether the file is still open and at its path is none or another.
    pub(crate) fn was_moved(&self, found: Option<&Metadata>) -> bool {
        self.is_open() && found.is_none_or(|found| place(found) != self.place)
    }

    /// Ships what was not acknowledged yet.
    ///
    /// # Errors
    /// What was acknowledged before stays so, and is remembered.
    pub(crate) async fn advance(
        &mut self,
        courier: &Courier<'_>,
        options: &Options,
        last_line: LastLine,
        report: &mut impl FnMut(Progress),
    ) -> Result<(), ShipError> {
        let unreadable = |path: &Path, source| ShipError::Read { path: path.to_owned(), source };
        let mut file = self.handle().map_err(|e| unreadable(&self.path, e))?;
        // Kept, so that what is written until it is replaced can still be read.
        self.file = Some(file.try_clone().map_err(|e| unreadable(&self.path, e))?);
        file.seek(SeekFrom::Start(self.checkpoint.offset)).map_err(|e| unreadable(&self.path, e))?;
        let place = (self.checkpoint.offset, self.checkpoint.line);
        let mut portions =
            ChunkReader::new(BufReader::new(file), self.framing, last_line, options.limits, place);
        let mut refused = self.outcome.rejected;
        loop {
            let portion = portions.next_portion().map_err(|source| match source.kind() {
                io::ErrorKind::FileTooLarge => {
                    ShipError::TooLarge { path: self.path.clone(), limit: options.limits.body_bytes }
                }
                _ => unreadable(&self.path, source),
            })?;
            let (end, line) = match portion {
                None => return Ok(()),
                Some(Portion::Chunk(chunk))
                    if !self.is_lines() && last_line == LastLine::Await && !is_json(&chunk) =>
                {
                    // A document that is being written is sent when it is complete.
                    return Ok(());
                }
                Some(Portion::Chunk(chunk)) => {
                    self.deliver(&chunk, courier, report).await?;
                    (chunk.end, chunk.first_line + chunk.lines)
                }
                Some(Portion::TooLong { line, end }) => {
                    let limit = options.limits.line_bytes;
                    self.outcome.reject(1, format!("line {}: longer than {limit} bytes", line + 1));
                    (end, line + 1)
                }
            };
            self.acknowledged(end, line, options)?;
            report(Progress::Acknowledged { offset: end });
            if self.outcome.rejected > refused {
                refused = self.outcome.rejected;
                report(Progress::Refused { records: refused });
            }
        }
    }

    /// Delivers a chunk, in parts if it is refused as a whole.
    async fn deliver(
        &mut self,
        chunk: &Chunk,
        courier: &Courier<'_>,
        report: &mut impl FnMut(Progress),
    ) -> Result<(), ShipError> {
        let mut open = vec![chunk.clone()];
        while let Some(part) = open.pop() {
            if part.body.trim_ascii().is_empty() {
                continue;
            }
            let stream = &self.context.stream_id;
            let key = format!("{stream}-{:016x}-{}-{}", self.checkpoint.head, part.start, part.end);
            let parcel = Parcel {
                chunk: &part,
                framing: self.framing,
                target: self.target,
                context: &self.context,
                idempotency_key: &key,
            };
            match courier.deliver(parcel, &mut self.outcome, report).await? {
                Delivered::Done => self.follow(&part),
                // The first half is to be sent first.
                Delivered::Divide => open.extend(part.halves().into_iter().rev()),
            }
        }
        Ok(())
    }

    /// Takes from a part what those after it need.
    fn follow(&mut self, part: &Chunk) {
        if self.target != Target::Raw {
            return;
        }
        let content_type =
            if self.framing == Framing::Lines { "application/x-ndjson" } else { "application/json" };
        let hint = self.context.format.clone();
        let body = Body { route: Route::Raw, content_type, format_hint: &hint, bytes: &part.body };
        follow_body(&mut self.context, &body);
        self.outcome.recognised |= !self.context.format.is_empty();
    }

    fn acknowledged(&mut self, offset: u64, line: u64, options: &Options) -> Result<(), ShipError> {
        self.checkpoint.offset = offset;
        self.checkpoint.line = line;
        self.checkpoint.refused = self.outcome.refused_before + self.outcome.rejected;
        self.checkpoint.stream = (self.target == Target::Raw).then(|| self.context.clone());
        let Some(store) = &options.checkpoints else { return Ok(()) };
        store.save(&self.receiver, &self.checkpoint).map_err(|source| ShipError::Checkpoint {
            path: store.file_of(&self.checkpoint.path, &self.receiver),
            source,
        })
    }
}

fn is_json(chunk: &Chunk) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(&chunk.body).is_ok()
}

/// Whether it can be told what a file holds: its first line is complete, or it is an array that begins.
pub(crate) fn begins_with_a_line(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    let document = head.trim_ascii_start().first() == Some(&b'[');
    Ok(document || head.len() as u64 == HEAD_BYTES || head.contains(&b'\n'))
}

/// A file's beginning, with all of its first line: what a file holds is told by a line.
fn head_of(file: &mut File, line_bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while head.len() < line_bytes && !head.contains(&b'\n') {
        if file.by_ref().take(HEAD_BYTES).read_to_end(&mut head)? == 0 {
            break;
        }
    }
    Ok(head)
}

fn place(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
