//! From bytes as sent to pieces fit to be published: a pure function, so that it can run on any thread.

use std::borrow::Cow;

use bytes::Bytes;
use fleetlog_formats::compression::{Encoding, decompress};
use fleetlog_formats::inspect::inspect;
use fleetlog_formats::{Body, Inspection, Rejected, follow_body};
use fleetlog_schemas::record::{Route, StreamContext};

use crate::error::Refusal;
use crate::shape::{Echo, Shape};
use crate::split::split;

/// Room in a message for everything but the payload: names, ids, and the numbers around them.
const ENVELOPE_BYTES: usize = 4096;
/// Room for one rejected index, as Avro writes it.
const REJECTED_INDEX_BYTES: usize = 5;

/// A body with what its sender said about it.
#[derive(Clone, Debug)]
pub(crate) struct Unchecked {
    pub(crate) route: Route,
    pub(crate) content_type: String,
    pub(crate) format_hint: String,
    /// The outline its door demands.
    pub(crate) shape: Shape,
    /// How it is compressed, if the sender said so.
    pub(crate) encoding: Option<Encoding>,
    pub(crate) project_id: String,
    /// Context of the stream it continues, if its sender named one.
    pub(crate) stream: Option<StreamContext>,
    pub(crate) payload: Bytes,
}

/// The limits a body is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) decoded_bytes: usize,
    pub(crate) records: u32,
    pub(crate) message_bytes: usize,
}

/// A sound body.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Records of all pieces, the rejected ones included.
    pub(crate) records: u32,
    /// Rejected records, by their index within the request.
    pub(crate) rejected: Vec<Rejected>,
    /// What to publish; nothing when there is no record.
    pub(crate) pieces: Vec<Piece>,
    /// What the answer repeats of it.
    pub(crate) echo: Echo,
}

/// The payload of one message.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) payload: Bytes,
    pub(crate) encoding: Encoding,
    pub(crate) records: u32,
    /// Index of its first record within the request.
    pub(crate) first_record: u32,
    /// Rejected records, by their index within the piece.
    pub(crate) rejected: Vec<u32>,
    /// What its records need of those before them.
    pub(crate) stream: Option<StreamContext>,
}

/// Decompresses, inspects and, if need be, splits a body.
///
/// # Errors
/// Why the body is refused as a whole.
pub(crate) fn check(
    body: &Unchecked,
    limits: Limits,
    mut reserve: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Checked, Refusal> {
    let encoding = body.encoding.map_or_else(|| Encoding::of("", &body.payload), Ok)?;
    let decoded = match decompress(encoding, &body.payload, limits.decoded_bytes, &mut reserve)? {
        Cow::Borrowed(_) => body.payload.clone(),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let echo = body.shape.read(&body.content_type, &decoded).map_err(Refusal::Malformed)?;
    let whole = look_at(body, &decoded)?;
    if whole.records > limits.records {
        return Err(Refusal::TooManyRecords { limit: limits.records });
    }
    if whole.records > 0 && usize::try_from(whole.records) == Ok(whole.rejected.len()) {
        return Err(Refusal::AllRejected { rejected: whole.rejected, echo });
    }
    let (pieces, rejected) = if whole.records == 0 {
        (Vec::new(), whole.rejected)
    } else if fits(body.payload.len(), whole.rejected.len(), limits) {
        let payload = body.payload.clone();
        (vec![Piece { payload, encoding, ..Piece::whole(body, &decoded, &whole) }], whole.rejected)
    } else {
        pieces(body, &decoded, &whole, limits, reserve)?
    };
    Ok(Checked { records: whole.records, rejected, pieces, echo })
}

impl Unchecked {
    /// `bytes` as a body of its kind.
    fn of<'a>(&'a self, bytes: &'a [u8]) -> Body<'a> {
        Body { route: self.route, content_type: &self.content_type, format_hint: &self.format_hint, bytes }
    }

    /// What its first piece needs of the lines before it; `None` for doors whose records all stand alone.
    fn context(&self) -> Option<StreamContext> {
        let alone = || StreamContext { format: self.format_hint.clone(), ..StreamContext::default() };
        (self.route == Route::Raw).then(|| self.stream.clone().unwrap_or_else(alone))
    }
}

fn look_at(body: &Unchecked, bytes: &[u8]) -> Result<Inspection, Refusal> {
    inspect(&body.of(bytes), &body.project_id).map_err(Refusal::Malformed)
}

fn fits(payload: usize, rejected: usize, limits: Limits) -> bool {
    payload + rejected * REJECTED_INDEX_BYTES + ENVELOPE_BYTES <= limits.message_bytes
}

/// What a body above the message size becomes: the pieces that fit, and the records that fit into none.
///
/// A record longer than a message is compressed; only what is too long even so is rejected, by its index, unless
/// nothing else is left.
fn pieces(
    body: &Unchecked,
    decoded: &Bytes,
    whole: &Inspection,
    limits: Limits,
    mut reserve: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<(Vec<Piece>, Vec<Rejected>), Refusal> {
    let too_large = || Refusal::Unsplittable { limit: limits.message_bytes };
    let reserved = ENVELOPE_BYTES + whole.rejected.len() * REJECTED_INDEX_BYTES;
    let max = limits.message_bytes.checked_sub(reserved).ok_or_else(too_large)?;
    let cut = parts(body, decoded, whole, max).unwrap_or_else(|| vec![Piece::whole(body, decoded, whole)]);
    let (mut pieces, mut rejected) = (Vec::with_capacity(cut.len()), whole.rejected.clone());
    for piece in cut {
        if piece.payload.len() <= max {
            pieces.push(piece);
        } else if let Some(payload) = compressed(&piece.payload, max, &mut reserve)? {
            pieces.push(Piece { payload, encoding: Encoding::Zstd, ..piece });
        } else {
            let code = "record_too_large";
            let message = format!("the record exceeds the message size of {} bytes", limits.message_bytes);
            let good = (0..piece.records).filter(|index| !piece.rejected.contains(index));
            let index = |index| piece.first_record.saturating_add(index);
            rejected.extend(good.map(|at| Rejected { index: index(at), code, message: message.clone() }));
        }
    }
    if pieces.iter().all(|piece| usize::try_from(piece.records) == Ok(piece.rejected.len())) {
        return Err(too_large());
    }
    rejected.sort_by_key(|rejected| rejected.index);
    Ok((pieces, rejected))
}

/// `bytes` as a zstd frame of at most `max` bytes, if it becomes so small.
fn compressed(
    bytes: &[u8],
    max: usize,
    mut reserve: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Option<Bytes>, Refusal> {
    let most = zstd::zstd_safe::compress_bound(bytes.len()).min(max);
    reserve(most)?;
    let mut frame = vec![0; most];
    // It fails only for want of room.
    let Ok(length) = zstd::bulk::compress_to_buffer(bytes, &mut frame, zstd::DEFAULT_COMPRESSION_LEVEL)
    else {
        return Ok(None);
    };
    frame.truncate(length);
    Ok(Some(Bytes::from(frame)))
}

impl Piece {
    /// All of a body, uncompressed.
    fn whole(body: &Unchecked, decoded: &Bytes, whole: &Inspection) -> Self {
        Self {
            payload: decoded.clone(),
            encoding: Encoding::Identity,
            records: whole.records,
            first_record: 0,
            rejected: whole.rejected.iter().map(|rejected| rejected.index).collect(),
            stream: body.stream.clone(),
        }
    }
}

/// Splits a body, and proves that the pieces are the whole: the same records, of which the same are rejected.
fn parts(body: &Unchecked, decoded: &Bytes, whole: &Inspection, max: usize) -> Option<Vec<Piece>> {
    let cut = split(body.route, &body.content_type, decoded, max)?;
    let mut pieces = Vec::with_capacity(cut.len());
    let mut first_record = 0_u32;
    let mut context = body.context();
    let mut rejected = whole.rejected.iter().map(|rejected| rejected.index);
    for piece in cut {
        let seen = look_at(body, &piece.bytes).ok()?;
        let within: Vec<u32> = seen.rejected.iter().map(|rejected| rejected.index).collect();
        if within.iter().any(|index| rejected.next() != Some(first_record + index)) {
            return None;
        }
        let stream = context.as_ref().map(|context| StreamContext {
            first_line: context.first_line.saturating_add(piece.lines_before),
            ..context.clone()
        });
        if let Some(context) = &mut context {
            follow_body(context, &body.of(&piece.bytes));
        }
        pieces.push(Piece {
            payload: piece.bytes,
            encoding: Encoding::Identity,
            records: seen.records,
            first_record,
            rejected: within,
            stream,
        });
        first_record = first_record.saturating_add(seen.records);
    }
    (first_record == whole.records && rejected.next().is_none()).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use fleetlog_formats::{Input, decode};
    use fleetlog_schemas::AgentEvent;
    use fleetlog_schemas::record::RawBatch;

    use super::*;

    const LIMITS: Limits = Limits { decoded_bytes: 1_000_000, records: 1_000, message_bytes: 5_000 };

    fn events(body: impl Into<Bytes>) -> Unchecked {
        Unchecked {
            route: Route::Events,
            content_type: "application/json".into(),
            format_hint: String::new(),
            shape: Shape::Any,
            encoding: None,
            project_id: "p".into(),
            stream: None,
            payload: body.into(),
        }
    }

    #[test]
    fn a_large_body_is_split_into_pieces_that_add_up_to_it() {
        let good = format!("{{\"type\":\"log\",\"data\":{{\"x\":\"{}\"}}}}", "x".repeat(300));
        let records: Vec<&str> = (0..9).map(|i| if i % 4 == 3 { "{\"type\":7}" } else { &*good }).collect();
        for body in [format!("[{}]", records.join(",")), records.join("\n")] {
            let checked = check(&events(body), LIMITS, |_| Ok(())).unwrap();
            assert!(checked.pieces.len() > 1);
            assert_eq!(checked.pieces.iter().map(|piece| piece.records).sum::<u32>(), 9);
            let rejected: Vec<u32> = checked
                .pieces
                .iter()
                .flat_map(|piece| piece.rejected.iter().map(|index| piece.first_record + index))
                .collect();
            assert_eq!(rejected, [3, 7]);
        }
    }

    /// Text that does not compress.
    fn noise(length: usize) -> String {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + u8::try_from(state >> 58).unwrap())
        };
        (0..length).map(|_| next()).filter(|c| *c != '\\').collect()
    }

    #[test]
    fn a_record_above_the_message_size_is_compressed_or_costs_itself_alone() {
        let event = |text: &str| format!("{{\"type\":\"log\",\"data\":{{\"x\":\"{text}\"}}}}");
        let records = [event("a"), event(&"x".repeat(9_000)), event("b"), event(&noise(9_000)), event("c")];
        for body in [records.join("\n"), format!("[{}]", records.join(","))] {
            let checked = check(&events(body), LIMITS, |_| Ok(())).unwrap();
            let rejected: Vec<_> = checked.rejected.iter().map(|bad| (bad.index, bad.code)).collect();
            assert_eq!((checked.records, rejected), (5, vec![(3, "record_too_large")]));
            let seen: Vec<_> = checked
                .pieces
                .iter()
                .map(|piece| (piece.first_record, piece.records, piece.encoding))
                .collect();
            let expected = [
                (0, 1, Encoding::Identity),
                (1, 1, Encoding::Zstd),
                (2, 1, Encoding::Identity),
                (4, 1, Encoding::Identity),
            ];
            assert_eq!(seen, expected);
            let whole = zstd::decode_all(&checked.pieces[1].payload[..]).unwrap();
            assert!(String::from_utf8(whole).unwrap().contains(&records[1]));
        }
    }

    #[test]
    fn a_large_body_that_cannot_be_cut_is_compressed() {
        let document = format!("{{\n\"batch\":[],\n\"x\":\"{}\"\n}}", "x".repeat(9_000));
        let body = Unchecked { route: Route::Raw, ..events(document.clone()) };
        let checked = check(&body, LIMITS, |_| Ok(())).unwrap();
        let [piece] = &checked.pieces[..] else { panic!("one piece") };
        assert_eq!(zstd::decode_all(&piece.payload[..]).unwrap(), document.as_bytes());
    }

    #[test]
    fn a_large_body_that_is_one_record_names_the_limit() {
        let body = format!("{{\"type\":\"log\",\"data\":{{\"x\":\"{}\"}}}}", noise(9_000));
        let refusal = check(&events(body), LIMITS, |_| Ok(())).unwrap_err();
        assert_eq!((refusal.status(), refusal.limit()), (413, Some(5_000)));
    }

    #[test]
    fn a_body_that_fits_is_published_as_it_came() {
        let body = zstd::encode_all(&b"{\"type\":\"log\"}\n{}"[..], 3).unwrap();
        // Whether its encoding is named or only shows in its first bytes.
        for encoding in [Some(Encoding::Zstd), None] {
            let unchecked = Unchecked { encoding, ..events(body.clone()) };
            let checked = check(&unchecked, LIMITS, |_| Ok(())).unwrap();
            let [piece] = &checked.pieces[..] else { panic!("one piece") };
            assert_eq!((&piece.payload[..], piece.encoding), (&body[..], Encoding::Zstd));
            assert_eq!((piece.records, &piece.rejected[..]), (2, &[1][..]));
        }
    }

    #[test]
    fn nothing_is_published_of_a_body_whose_records_are_all_bad_or_that_has_none() {
        let bad = check(&events("[{},7]"), LIMITS, |_| Ok(())).unwrap_err();
        assert_eq!((bad.status(), bad.rejected().len()), (400, 2));
        assert!(check(&events("[]"), LIMITS, |_| Ok(())).unwrap().pieces.is_empty());
        let many = Limits { records: 1, ..LIMITS };
        assert_eq!(check(&events("[{},7]"), many, |_| Ok(())).unwrap_err().status(), 413);
    }

    /// A line that needs the turn and the agent that the line before it named.
    fn transcript() -> String {
        let line = |n: usize| match n % 5 {
            0 => format!("{{\"type\":\"user\",\"promptId\":\"turn-{n}\",\"message\":{{\"content\":\"do\"}}"),
            _ => format!("{{\"type\":\"queue-operation\",\"content\":\"{}\"", "x".repeat(300)),
        };
        (0..40).map(|n| format!("{},\"sessionId\":\"s\"}}\n", line(n))).collect()
    }

    fn decoded(piece: &Piece) -> Vec<AgentEvent> {
        let batch = RawBatch {
            project_id: "p".into(),
            request_id: "r".into(),
            route: Route::Raw,
            format_hint: "auto".into(),
            first_record: piece.first_record,
            stream: piece.stream.clone(),
            ..RawBatch::default()
        };
        decode(&Input::of(&batch, &piece.payload, 0, 0)).unwrap().events
    }

    #[test]
    fn the_pieces_of_a_stream_mean_what_the_whole_means() {
        let named = StreamContext { stream_id: "f".into(), first_line: 7, ..StreamContext::default() };
        for stream in [None, Some(named)] {
            let body = Unchecked {
                route: Route::Raw,
                format_hint: "auto".into(),
                content_type: "application/x-ndjson".into(),
                stream,
                ..events(transcript())
            };
            let whole = check(&body, Limits { message_bytes: 100_000, ..LIMITS }, |_| Ok(())).unwrap();
            let pieces = check(&body, LIMITS, |_| Ok(())).unwrap().pieces;
            assert!(whole.pieces.len() == 1 && pieces.len() > 5);
            let [one] = &whole.pieces[..] else { panic!("one piece") };
            let parts: Vec<AgentEvent> = pieces.iter().flat_map(decoded).collect();
            assert_eq!(parts, decoded(one));
            assert_eq!(parts.last().map(|event| event.turn_id.as_str()), Some("turn-35"));
        }
    }

    mod property {
        use proptest::prelude::*;

        use super::*;

        /// A record that may hold anything a cut could stumble over, or may be bad.
        fn record() -> impl Strategy<Value = String> {
            let text = prop::collection::vec(
                prop::sample::select(vec!["a", "\\\"", "[", "]", "{", "}", ",", "\\n", " ", "\\\\", "ü"]),
                0..200,
            );
            (any::<bool>(), text).prop_map(|(good, text)| {
                let kind = if good { "\"log\"" } else { "7" };
                format!("{{\"type\":{kind},\"data\":{{\"x\":[\"{}\"]}}}}", text.concat())
            })
        }

        proptest! {
            /// INV-6: the processor counts what the gateway counted, however the body was cut.
            #[test]
            fn pieces_add_up_to_the_body_and_each_fits(
                records in prop::collection::vec(record(), 1..60),
                as_lines in any::<bool>(),
            ) {
                let body =
                    if as_lines { records.join("\n") } else { format!("[{}]", records.join(" ,\n")) };
                let bad: Vec<u32> = (0_u32..)
                    .zip(&records)
                    .filter_map(|(index, record)| record.contains("\"type\":7").then_some(index))
                    .collect();
                prop_assume!(bad.len() < records.len());
                let checked = check(&events(body), LIMITS, |_| Ok(())).unwrap();
                let mut next = 0;
                let mut rejected = Vec::new();
                for piece in &checked.pieces {
                    prop_assert!(piece.payload.len() + ENVELOPE_BYTES <= LIMITS.message_bytes);
                    prop_assert_eq!(piece.first_record, next);
                    next += piece.records;
                    rejected.extend(piece.rejected.iter().map(|index| piece.first_record + index));
                }
                prop_assert_eq!(usize::try_from(next).unwrap(), records.len());
                prop_assert_eq!(rejected, bad);
            }
        }
    }
}
