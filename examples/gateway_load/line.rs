//! A connection that is kept, with as little work in it as there can be.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to a server, and where the API begins there.
pub(crate) struct Line {
    stream: TcpStream,
    host: String,
    prefix: String,
    /// The request, and what came of the answer; kept, so that nothing is allocated again.
    asked: Vec<u8>,
    answer: Vec<u8>,
    body: Vec<u8>,
}

impl Line {
    /// To `http://host:port/prefix`.
    pub(crate) async fn new(base: &str) -> Result<Self> {
        let rest = base.strip_prefix("http://").context("BASE should begin with http://")?;
        let (host, prefix) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let [asked, answer, body] = [(); 3].map(|()| Vec::with_capacity(4096));
        Ok(Self { stream, host: host.to_owned(), prefix, asked, answer, body })
    }

    /// Asks, and reads the whole answer: status and body.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, &[u8])> {
        let Self { prefix, host, asked, .. } = self;
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        asked.clear();
        write!(
            asked,
            "{method} {prefix}{path} HTTP/1.1\r\nhost: {host}\r\n{kind}content-length: {}\r\n\r\n",
            body.len()
        )?;
        asked.extend_from_slice(body.as_bytes());
        self.stream.write_all(&self.asked).await?;
        self.answer.clear();
        self.body.clear();
        let begin = self.after(0, b"\r\n\r\n").await?;
        let (mut length, mut chunked) = (0, false);
        let mut lines = std::str::from_utf8(&self.answer[..begin])?.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding");
        }
        if chunked {
            self.chunks(begin).await?;
            return Ok((status, &self.body));
        }
        self.until(begin + length).await?;
        Ok((status, &self.answer[begin..begin + length]))
    }

    /// Reads a body that comes in pieces, each with its length before it.
    async fn chunks(&mut self, mut begin: usize) -> Result<()> {
        loop {
            let data = self.after(begin, b"\r\n").await?;
            let length = std::str::from_utf8(&self.answer[begin..data - 2])?;
            let length = usize::from_str_radix(length, 16).context("no length of a piece")?;
            // With the end of line behind it.
            begin = data + length + 2;
            self.until(begin).await?;
            self.body.extend_from_slice(&self.answer[data..data + length]);
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// Reads until there is such an end behind `begin`. Returns where what follows it begins.
    async fn after(&mut self, begin: usize, end: &[u8]) -> Result<usize> {
        loop {
            if let Some(at) = self.answer[begin..].windows(end.len()).position(|part| part == end) {
                return Ok(begin + at + end.len());
            }
            self.until(self.answer.len() + 1).await?;
        }
    }

    /// Reads until there are so many bytes.
    async fn until(&mut self, length: usize) -> Result<()> {
        while self.answer.len() < length {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server hung up");
        }
        Ok(())
    }
}
