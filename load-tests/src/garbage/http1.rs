//! HTTP/1.1 by hand: a client library would refuse to send most of this.

use std::io;

use anyhow::Context;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::mutate::noise;
use super::request::Target;
use super::{Listener, PATIENCE, Tally};

/// Longest answer that is read.
const ANSWER_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// A connection that is opened when it is needed, and again when the other side has closed it.
pub(crate) struct Connection {
    address: String,
    listener: Listener,
    open: Option<TcpStream>,
}

/// Connects; a listener whose queue is full is tried again.
pub(crate) async fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(_)) if Instant::now() < deadline => sleep(std::time::Duration::from_millis(50)).await,
            Ok(Err(error)) => return Err(error).with_context(|| format!("{address} takes no connections")),
            Err(_) => anyhow::bail!("{address} took no connection within {PATIENCE:?}"),
        }
    }
}

impl Connection {
    pub(crate) fn new(address: String, listener: Listener) -> Self {
        Self { address, listener, open: None }
    }

    /// Writes requests one after the other without waiting, and reads their answers. What a closed connection left
    /// unanswered is counted as such, and not made again.
    pub(crate) async fn exchange(&mut self, requests: &[Vec<u8>], tally: &mut Tally) -> anyhow::Result<()> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => connect(&self.address).await?,
        };
        let all = requests.concat();
        let (reading, mut writing) = stream.split();
        let write = async {
            // The other side may stop reading: it answers then, and that is what is looked at.
            let _written = writing.write_all(&all).await.is_ok();
            std::future::pending::<()>().await;
        };
        let keep = tokio::select! {
            keep = answers(BufReader::new(reading), self.listener, requests, tally) => keep,
            () = write => false,
        };
        self.open = keep.then_some(stream);
        Ok(())
    }
}

/// Reads the answers of requests; returns whether the connection goes on.
async fn answers(
    mut stream: impl AsyncBufReadExt + Unpin,
    listener: Listener,
    requests: &[Vec<u8>],
    tally: &mut Tally,
) -> bool {
    for (number, request) in requests.iter().enumerate() {
        let outcome = timeout(PATIENCE, answer(&mut stream, !request.starts_with(b"HEAD"))).await;
        match outcome {
            Ok(Ok(Some((status, goes_on)))) => {
                tally.answered(listener, status, request);
                if goes_on {
                    continue;
                }
            }
            Ok(Ok(None) | Err(_)) => tally.answered(listener, 0, request),
            Err(_) => tally.hung(request),
        }
        // Nothing that follows on this connection will be answered.
        requests.iter().skip(number + 1).for_each(|request| tally.answered(listener, 0, request));
        return false;
    }
    true
}

/// Reads one answer: its status, and whether the connection goes on. `None` at the end of the stream.
async fn answer(
    stream: &mut (impl AsyncBufReadExt + Unpin),
    has_body: bool,
) -> io::Result<Option<(u16, bool)>> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let (mut status, mut length, mut chunked, mut goes_on) = (None, None, false, true);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if status.is_none() {
            let code = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
            status = Some(code.ok_or_else(|| malformed("no status line"))?);
        } else if text.is_empty() {
            break;
        } else if let Some((name, value)) = text.split_once(':') {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse::<u64>().ok(),
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                "connection" => goes_on &= !value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }
    let status = status.unwrap_or_default();
    if !has_body || matches!(status, 100..=199 | 204 | 304) {
        return Ok(Some((status, goes_on)));
    }
    if chunked {
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(|_| malformed("no chunk size"))?;
            skip(stream, size + 2).await?;
            if size == 0 {
                return Ok(Some((status, goes_on)));
            }
        }
    }
    match length {
        Some(length) => skip(stream, length).await?,
        None => {
            skip_all(stream).await?;
            goes_on = false;
        }
    }
    Ok(Some((status, goes_on)))
}

async fn skip(stream: &mut (impl AsyncBufReadExt + Unpin), bytes: u64) -> io::Result<()> {
    tokio::io::copy(&mut stream.take(bytes.min(ANSWER_MAX_BYTES)), &mut tokio::io::sink()).await.map(|_| ())
}

async fn skip_all(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<()> {
    skip(stream, ANSWER_MAX_BYTES).await
}

/// Opens a connection, says something that is no request or only part of one, and waits until the other side answers or
/// closes.
pub(crate) async fn break_framing(
    address: &str,
    target: &Target<'_>,
    random: &mut StdRng,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let bytes = broken(target, random);
    let mut stream = connect(address).await?;
    let _written = stream.write_all(&bytes).await.is_ok();
    // The end of what is sent tells the other side not to wait for more.
    let _shut = stream.shutdown().await.is_ok();
    let mut stream = BufReader::new(stream);
    match timeout(PATIENCE, answer(&mut stream, true)).await {
        Err(_) => tally.hung(&bytes),
        Ok(Ok(Some((status, _)))) => tally.answered(target.listener, status, &bytes),
        Ok(Ok(None) | Err(_)) => tally.answered(target.listener, 0, &bytes),
    }
    Ok(())
}

fn broken(target: &Target<'_>, random: &mut StdRng) -> Vec<u8> {
    let mut request = target.request(random);
    match random.random_range(0..8) {
        0 => noise(random, 2_000),
        // Ends in its midst.
        1 | 2 => {
            request.truncate(random.random_range(0..=request.len()));
            request
        }
        3 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied().chain(noise(random, 400)).collect(),
        4 => format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(random.random_range(1..200_000)))
            .into_bytes(),
        5 => (0..300).fold(b"GET / HTTP/1.1\r\n".to_vec(), |mut head, n| {
            head.extend(format!("h{n}: v\r\n").into_bytes());
            head
        }),
        6 => {
            const HEADS: [&str; 6] = [
                "content-length: 18446744073709551616",
                "content-length: -1",
                "content-length: 5\r\ncontent-length: 6",
                "transfer-encoding: chunked\r\ncontent-length: 3",
                "transfer-encoding: chunked",
                "expect: 200-maybe",
            ];
            let head = HEADS.get(random.random_range(0..HEADS.len())).copied().unwrap_or_default();
            format!("POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{head}\r\n\r\nfffffffffffffffff\r\nx", target.key)
                .into_bytes()
        }
        _ => {
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..request.len().max(1));
                if let Some(byte) = request.get_mut(at) {
                    *byte = random.random();
                }
            }
            request
        }
    }
}
