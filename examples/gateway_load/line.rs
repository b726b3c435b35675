//! A connection that is kept, with as little work in it as there can be.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection to a server, and where the API begins there.
pub(crate) struct Line {
    stream: BufReader<TcpStream>,
    host: String,
    prefix: String,
}

impl Line {
    /// To `http://host:port/prefix`.
    pub(crate) async fn new(base: &str) -> Result<Self> {
        let rest = base.strip_prefix("http://").context("BASE should begin with http://")?;
        let (host, prefix) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: host.to_owned(), prefix })
    }

    /// Asks, and reads the whole answer: status and body.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
        let Self { stream, host, prefix } = self;
        let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
        let length = body.len();
        let request =
            format!("{method} {prefix}{path} HTTP/1.1\r\nhost: {host}\r\n{kind}content-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let (mut status, mut length, mut chunked, mut text) = (0, 0, false, String::new());
        loop {
            text.clear();
            ensure!(stream.read_line(&mut text).await? > 0, "the server hung up");
            let head = text.trim_end();
            if head.is_empty() {
                break;
            }
            match head.split_once(':') {
                None => status = head.split(' ').nth(1).context("no status")?.parse()?,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some((name, _)) => chunked |= name.eq_ignore_ascii_case("transfer-encoding"),
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        if chunked {
            self.chunks(&mut body).await?;
        }
        Ok((status, body))
    }

    /// Reads a body that comes in pieces, each with its length before it, to the empty one.
    async fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line).await? > 0, "the server hung up");
            let length = usize::from_str_radix(line.trim_end(), 16).context("no length of a piece")?;
            let begin = body.len();
            // With the end of line behind it.
            body.resize(begin + length + 2, 0);
            self.stream.read_exact(&mut body[begin..]).await?;
            body.truncate(begin + length);
            if length == 0 {
                return Ok(());
            }
        }
    }
}
