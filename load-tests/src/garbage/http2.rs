//! HTTP/2 by hand, as far as calls over gRPC need it (RFC 9113; headers as literals without an index, RFC 7541, 6.2.2).

use std::collections::BTreeMap;
use std::io;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::http1::connect;
use super::mutate::{change_bytes, noise};
use super::request::Target;
use super::{Listener, PATIENCE, Tally};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// What a peer takes of all bodies together without being asked (RFC 9113, 6.9.2).
const WINDOW: usize = 65_535;

/// Opens a connection, makes `calls` of which some are broken, and waits for all their ends.
pub(crate) async fn attack(
    address: &str,
    target: &Target<'_>,
    calls: u64,
    random: &mut StdRng,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut bytes = PREFACE.to_vec();
    frame(&mut bytes, SETTINGS, 0, 0, &[]);
    let mut open = BTreeMap::new();
    let mut window = WINDOW;
    for number in 0..calls {
        let stream = u32::try_from(number * 2 + 1).unwrap_or(u32::MAX);
        let (path, message) = target.message(random);
        let body = framed(message, random);
        if body.len() > window {
            break;
        }
        window -= body.len();
        frame(&mut bytes, HEADERS, END_HEADERS, stream, &headers(path, target.key, random));
        for part in body.chunks(16_000) {
            frame(&mut bytes, DATA, 0, stream, part);
        }
        frame(&mut bytes, DATA, END_STREAM, stream, &[]);
        open.insert(stream, body);
    }
    let breaks = random.random_ratio(1, 8);
    if breaks {
        let mut rest = bytes.split_off(PREFACE.len());
        for _ in 0..random.random_range(1..4) {
            change_bytes(&mut rest, random);
        }
        bytes.extend(rest);
    }
    let mut socket = connect(address).await?;
    let _written = socket.write_all(&bytes).await.is_ok();
    if breaks {
        // A broken frame may announce more than comes.
        let _shut = socket.shutdown().await.is_ok();
    }
    let mut socket = BufReader::new(socket);
    let waiting = async {
        while !open.is_empty() {
            // The other side closed: nothing more will come.
            let Ok((kind, flags, stream, payload)) = read_frame(&mut socket).await else { break };
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    let mut ack = Vec::new();
                    frame(&mut ack, SETTINGS, ACK, 0, &[]);
                    let _told = socket.get_mut().write_all(&ack).await.is_ok();
                }
                PING if flags & ACK == 0 => {
                    let mut pong = Vec::new();
                    frame(&mut pong, PING, ACK, 0, &payload);
                    let _told = socket.get_mut().write_all(&pong).await.is_ok();
                }
                GOAWAY if breaks => break,
                RST_STREAM | HEADERS | DATA if kind == RST_STREAM || flags & END_STREAM != 0 => {
                    let status = if kind == RST_STREAM { 0 } else { 200 };
                    if let Some(body) = open.remove(&stream) {
                        tally.answered(Listener::Grpc, status, &body);
                    }
                }
                _ => {}
            }
        }
    };
    let in_time = timeout(PATIENCE, waiting).await.is_ok();
    for body in open.values() {
        if in_time { tally.answered(Listener::Grpc, 0, body) } else { tally.hung(body) }
    }
    Ok(())
}

async fn read_frame(socket: &mut (impl AsyncReadExt + Unpin)) -> io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, s @ ..] = head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes(s) & 0x7fff_ffff, payload))
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A message in gRPC's frame, which may lie about what it holds.
fn framed(message: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    let (flag, mut length) = match random.random_range(0..12) {
        0 => (1, message.len()),
        1 => (random.random(), message.len()),
        _ => (0, message.len()),
    };
    if random.random_ratio(1, 12) {
        length = random.random_range(0..1 << 24);
    }
    let mut out = vec![flag];
    out.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_be_bytes());
    out.extend(message);
    out
}

fn headers(path: &str, key: &str, random: &mut StdRng) -> Vec<u8> {
    let authorization = if random.random_ratio(1, 10) { String::new() } else { format!("Bearer {key}") };
    // Printable: other bytes are an error of the connection, and take the calls beside it along.
    let odd: String = noise(random, 20).into_iter().map(|byte| char::from(b'!' + byte % 90)).collect();
    let encoding = if random.random_ratio(1, 10) { odd.as_str() } else { "identity" };
    let content_type = if random.random_ratio(1, 20) { "text/html" } else { "application/grpc" };
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "garbage"),
        ("te", "trailers"),
        ("content-type", content_type),
        ("grpc-encoding", encoding),
        ("authorization", &authorization),
    ] {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A string literal without Huffman coding; its length in a prefix of 7 bits (RFC 7541, 5.1).
fn text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        length @ 0..127 => out.push(length as u8),
        length => {
            out.push(127);
            super::wire::varint(out, (length - 127) as u64);
        }
    }
    out.extend_from_slice(text.as_bytes());
}
