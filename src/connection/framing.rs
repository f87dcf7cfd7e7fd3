//! Where one HTTP/1 request ends and the next begins (RFC 9112, sections 6 and 7), and what is forwarded to actix.
//!
//! Pure: bytes in, bytes out. Nothing is forwarded that could be read in two ways: chunks are written anew, without
//! extensions and trailers. A head that is not plainly well-formed is forwarded so that actix refuses it. After such a
//! head, and from a malformed chunk on, nothing is forwarded any more.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use httparse::{Header, Status};

/// Most headers that actix reads; it refuses more.
const MAX_HEADERS: usize = 96;
/// Longest head, in bytes. A longer one is forwarded unfinished: actix refuses it with 431.
const MAX_HEAD_LEN: usize = 128 << 10;
/// The longest line before a chunk, and the longest trailer section, in bytes.
const MAX_LINE_LEN: usize = 16 << 10;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// This many bytes of a body; at least one.
    Body(u64),
    /// The line before a chunk.
    ChunkSize,
    /// This many bytes of a chunk; at least one.
    Chunk(u64),
    /// The line break after a chunk.
    ChunkEnd,
    /// The lines after the last chunk, of which this many bytes have passed.
    Trailer(usize),
    /// Nothing that is forwarded.
    Nothing,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Framing {
    part: Part,
    /// Bytes of an incomplete head that have been parsed in vain.
    searched: usize,
}

impl Framing {
    /// The beginning of a connection.
    pub fn new() -> Self {
        Self { part: Part::Head, searched: 0 }
    }

    /// Whether the next byte begins a request.
    pub fn between_requests(&self) -> bool {
        self.part == Part::Head
    }

    /// Whether nothing is forwarded any more.
    pub fn is_over(&self) -> bool {
        self.part == Part::Nothing
    }

    /// Takes the next part from `bytes`, and returns what of it is forwarded to actix; `None` if more bytes are needed.
    /// Never returns bytes of two requests.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Option<BytesMut> {
        while !bytes.is_empty() {
            match self.part {
                Part::Head => match self.head(bytes)? {
                    // An empty line before a request (RFC 9112, section 2.2).
                    head if head.is_empty() => {}
                    head => return Some(head),
                },
                Part::Body(left) => {
                    let taken = take(bytes, left);
                    self.part = Part::of_length(left - taken.len() as u64);
                    return Some(taken);
                }
                Part::ChunkSize => {
                    let Ok(line) = take_line(bytes, MAX_LINE_LEN) else { return self.end() };
                    match chunk_size(&line?) {
                        Some(0) => self.part = Part::Trailer(0),
                        Some(size) => {
                            self.part = Part::Chunk(size);
                            return Some(format!("{size:x}\r\n").as_bytes().into());
                        }
                        None => return self.end(),
                    }
                }
                Part::Chunk(left) => {
                    let taken = take(bytes, left);
                    let left = left - taken.len() as u64;
                    self.part = if left == 0 { Part::ChunkEnd } else { Part::Chunk(left) };
                    return Some(taken);
                }
                Part::ChunkEnd => {
                    if bytes[0] == b'\r' && bytes.len() == 1 {
                        return None;
                    }
                    if !bytes.starts_with(b"\r\n") {
                        return self.end();
                    }
                    self.part = Part::ChunkSize;
                    return Some(bytes.split_to(2));
                }
                Part::Trailer(before) => {
                    let Ok(line) = take_line(bytes, MAX_LINE_LEN.saturating_sub(before)) else { return self.end() };
                    let line = line?;
                    if line.is_empty() {
                        self.part = Part::Head;
                        return Some(b"0\r\n\r\n"[..].into());
                    }
                    // With its CRLF.
                    self.part = Part::Trailer(before + line.len() + 2);
                }
                Part::Nothing => return None,
            }
        }
        None
    }

    fn end(&mut self) -> Option<BytesMut> {
        self.part = Part::Nothing;
        None
    }

    /// The head of a request as it is forwarded; empty if there was an empty line instead.
    fn head(&mut self, bytes: &mut BytesMut) -> Option<BytesMut> {
        for empty in [&b"\r\n"[..], b"\n"] {
            if bytes.starts_with(empty) {
                bytes.advance(empty.len());
                return Some(BytesMut::new());
            }
        }
        // Parsing an unfinished head again for every byte that arrives would take quadratic time.
        let may_be_complete = self.searched == 0
            || bytes.len() > MAX_HEAD_LEN
            || bytes[self.searched.min(bytes.len())..].contains(&b'\n');
        self.searched = bytes.len();
        if !may_be_complete {
            return None;
        }
        let (head, next) = match read_head(bytes) {
            Found::Head { length, next, rewritten } => {
                let head = bytes.split_to(length);
                (rewritten.unwrap_or(head), next)
            }
            Found::Incomplete if bytes.len() <= MAX_HEAD_LEN => return None,
            Found::Incomplete | Found::None => (bytes.split(), Part::Nothing),
        };
        (self.part, self.searched) = (next, 0);
        Some(head)
    }
}

impl Part {
    /// This many bytes of a body, which can be none.
    fn of_length(bytes: u64) -> Self {
        if bytes == 0 { Self::Head } else { Self::Body(bytes) }
    }
}

/// Takes up to `count` bytes.
fn take(bytes: &mut BytesMut, count: u64) -> BytesMut {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_to(count)
}

/// A line that is malformed or too long.
struct BadLine;

/// Takes a line without its CRLF; `None` until it is complete. Control characters are refused: what ends a line for one
/// parser and not for another allows request smuggling.
fn take_line(bytes: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, BadLine> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() > limit { Err(BadLine) } else { Ok(None) };
    };
    let mut line = bytes.split_to(end + 1);
    let text = line.strip_suffix(b"\r\n").filter(|text| text.len() <= limit).ok_or(BadLine)?;
    if text.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(BadLine);
    }
    line.truncate(text.len());
    Ok(Some(line))
}

/// The size in the line before a chunk: hexadecimal, with any number of leading zeros, and extensions after it.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    let digits = std::str::from_utf8(size).ok().filter(|size| size.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok()
}

enum Found {
    Head {
        length: usize,
        next: Part,
        /// The head as it is forwarded, if that differs from how it arrived.
        rewritten: Option<BytesMut>,
    },
    Incomplete,
    /// Not the head of a request.
    None,
}

fn read_head(bytes: &[u8]) -> Found {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Found::Incomplete,
        Err(_) => return Found::None,
    };
    if request.method == Some("CONNECT") {
        return Found::Head {
            length,
            next: Part::Nothing,
            rewritten: rewritten(&request, without_body_and_connection, "connection: close\r\n"),
        };
    }
    // Where it is ambiguous, actix refuses the head.
    let next = body(&request).unwrap_or(Part::Nothing);
    let offers = request.headers.iter().any(|header| !matches!(without_upgrade(header), Some(Cow::Borrowed(_))));
    let rewritten = if offers { rewritten(&request, without_upgrade, "") } else { None };
    Found::Head { length, next, rewritten }
}

/// What follows the head; `None` where that is ambiguous (RFC 9112, section 6.3).
fn body(request: &httparse::Request<'_, '_>) -> Option<Part> {
    let mut body = None;
    for header in request.headers.iter() {
        let found = if header.name.eq_ignore_ascii_case("content-length") {
            let digits = header.value.trim_ascii();
            let number = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
            Part::of_length(number?.parse().ok()?)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") || request.version != Some(1) {
                return None;
            }
            Part::ChunkSize
        } else {
            continue;
        };
        // Two of them contradict each other, even if they say the same.
        if body.replace(found).is_some() {
            return None;
        }
    }
    Some(body.unwrap_or(Part::Head))
}

/// A head with the headers and values that `keep` returns, and `more` header lines.
fn rewritten<'b>(
    request: &httparse::Request<'_, 'b>,
    keep: fn(&Header<'b>) -> Option<Cow<'b, [u8]>>,
    more: &str,
) -> Option<BytesMut> {
    let (method, path, version) = (request.method?, request.path?, request.version?);
    let mut head = BytesMut::from(format!("{method} {path} HTTP/1.{version}\r\n").as_bytes());
    for header in request.headers.iter() {
        if let Some(value) = keep(header) {
            for part in [header.name.as_bytes(), b": ", &value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
    }
    head.extend_from_slice(more.as_bytes());
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// Leaves out `Upgrade` and the options in `Connection` that belong to it; `Cow::Owned` if it left out part of a value.
///
/// We support no other protocol, so an offer to upgrade is ignored (RFC 9110, section 7.8). actix would read everything
/// after `Upgrade: websocket` as a body, and answer `Connection: upgrade` with the same.
fn without_upgrade<'b>(header: &Header<'b>) -> Option<Cow<'b, [u8]>> {
    if header.name.eq_ignore_ascii_case("upgrade") {
        return None;
    }
    if !header.name.eq_ignore_ascii_case("connection") {
        return Some(header.value.into());
    }
    // The options (RFC 9110, section 7.6.1).
    let options = header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let is_upgrade =
        |option: &&[u8]| option.eq_ignore_ascii_case(b"upgrade") || option.eq_ignore_ascii_case(b"http2-settings");
    if !options.clone().any(|option| is_upgrade(&option)) {
        return Some(header.value.into());
    }
    let kept: Vec<&[u8]> = options.filter(|option| !option.is_empty() && !is_upgrade(option)).collect();
    (!kept.is_empty()).then(|| kept.join(&b", "[..]).into())
}

/// For CONNECT, which is always refused: leaves out headers about a body and about the connection.
fn without_body_and_connection<'b>(header: &Header<'b>) -> Option<Cow<'b, [u8]>> {
    let left_out = ["connection", "upgrade", "content-length", "transfer-encoding", "expect"];
    (!left_out.iter().any(|name| header.name.eq_ignore_ascii_case(name))).then(|| header.value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is forwarded, request by request, when `stream` comes in pieces of `size` bytes.
    fn requests(stream: &[u8], size: usize) -> (Vec<String>, Framing) {
        let (mut framing, mut bytes, mut requests) = (Framing::new(), BytesMut::new(), vec![Vec::new()]);
        for piece in stream.chunks(size) {
            bytes.extend_from_slice(piece);
            while let Some(part) = framing.next(&mut bytes) {
                requests.last_mut().unwrap().extend_from_slice(&part);
                if framing.between_requests() {
                    requests.push(Vec::new());
                }
            }
        }
        requests.pop_if(|last| last.is_empty());
        (requests.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect(), framing)
    }

    /// Each request of `stream` is forwarded as `expected`, wherever the stream is cut.
    #[track_caller]
    fn assert_split(stream: &str, expected: &[&str]) {
        for size in 1..=stream.len() {
            let (found, framing) = requests(stream.as_bytes(), size);
            assert_eq!(found, expected, "in pieces of {size}");
            assert!(framing.between_requests());
        }
    }

    #[test]
    fn requests_are_separated_wherever_the_stream_is_cut() {
        let all = [
            "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  13 \r\n\r\n{\"title\":\"x\"}",
            "HEAD /health HTTP/1.0\r\n\r\n",
            "POST /todos HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: x\r\n\r\n\
             4\r\nGET \r\na\r\n0123456789\r\n0\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "DELETE /a HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        assert_split(&all.concat(), &all);
        assert_split(&format!("\r\n\n\r\n{}\r\n{}", all[0], all[1]), &all[..2]);
    }

    #[test]
    fn chunks_are_forwarded_without_what_could_be_read_in_two_ways() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (sent, expected) in [
            ("00000000000000000000D\r\n0123456789abc\r\n000\r\n\r\n", "d\r\n0123456789abc\r\n0\r\n\r\n"),
            ("3 ; a=\"b;c\";d\r\nabc\r\n0;x\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
            ("1\r\na\r\n0\r\nTrailer: x\r\nOther:\ty\r\n\r\n", "1\r\na\r\n0\r\n\r\n"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "2\r\n\r\n\r\n0\r\n\r\n"),
        ] {
            let get = "GET / HTTP/1.1\r\n\r\n";
            assert_split(&format!("{head}{sent}{get}"), &[&format!("{head}{expected}"), get]);
        }
    }

    #[test]
    fn nothing_is_forwarded_from_a_malformed_chunk_on() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = "e".repeat(MAX_LINE_LEN + 1);
        for (sent, forwarded) in [
            ("zz\r\n", ""),
            ("\r\n", ""),
            (";a\r\n", ""),
            ("-1\r\n", ""),
            ("0x1\r\n", ""),
            ("1\n", ""),
            ("1\r\r\n", ""),
            ("1;\u{0}\r\n", ""),
            ("11111111111111111\r\n", ""),
            (&format!("1;{long}\r\n"), ""),
            (&format!("1;{long}"), ""),
            ("1\r\nabc\r\n", "1\r\na"),
            ("1\r\na\n0\r\n\r\n", "1\r\na"),
            ("1\r\na\rb", "1\r\na"),
            ("0\r\n\n\r\n", ""),
            ("0\r\nX: y\n\r\n", ""),
            ("0\r\nX: y\rZ\r\n\r\n", ""),
            (&format!("0\r\nX: {long}\r\n\r\n"), ""),
            (&format!("0\r\n{}\r\n", "X: y\r\n".repeat(MAX_LINE_LEN / 4)), ""),
        ] {
            let stream = format!("{head}{sent}GET / HTTP/1.1\r\n\r\n");
            for size in (1..=stream.len()).filter(|size| *size < 60 || size % 997 == 0) {
                let (found, framing) = requests(stream.as_bytes(), size);
                assert_eq!(found, [format!("{head}{forwarded}")], "{sent:?} in pieces of {size}");
                assert_eq!(framing.part, Part::Nothing);
            }
        }
    }

    #[test]
    fn an_offer_to_upgrade_is_left_out() {
        for (head, expected) in [
            (
                "GET /health HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
                "GET /health HTTP/1.1\r\nHost: x\r\nHTTP2-Settings: AA\r\n\r\n",
            ),
            (
                "GET /health HTTP/1.0\r\nHost: x\r\nConnection: upgrade\r\n\r\n",
                "GET /health HTTP/1.0\r\nHost: x\r\n\r\n",
            ),
            (
                "GET /?a=b HTTP/1.1\r\nHost: x\r\nconnection:keep-alive , upgrade,\r\nX:  y\r\nCONNECTION: close\r\n\r\n",
                "GET /?a=b HTTP/1.1\r\nHost: x\r\nconnection: keep-alive\r\nX: y\r\nCONNECTION: close\r\n\r\n",
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nUPGRADE: websocket\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\nHost:  x\r\nconnection: ,close,\r\n\r\n",
                "GET / HTTP/1.1\r\nHost:  x\r\nconnection: ,close,\r\n\r\n",
            ),
        ] {
            assert_split(head, &[expected]);
        }
    }

    #[test]
    fn nothing_is_forwarded_after_a_request_that_is_not_plainly_well_formed() {
        let get = "GET / HTTP/1.1\r\n\r\n";
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            let stream = format!("{head}{get}");
            for size in 1..=stream.len() {
                let (found, framing) = requests(stream.as_bytes(), size);
                assert_eq!((found.concat().as_str(), framing.part), (head, Part::Nothing), "in pieces of {size}");
            }
        }
        for line in ["no request", "GET / HTTP/1.1\r\nbad header"] {
            let stream = format!("{line}\r\n\r\n{get}");
            let (found, framing) = requests(stream.as_bytes(), 1);
            // As soon as that is clear, with everything that had arrived by then.
            assert_eq!((framing.part, found.len()), (Part::Nothing, 1));
            assert!(stream.starts_with(&found[0]) && found[0].len() <= line.len() + 4, "{found:?}");
        }
    }

    #[test]
    fn a_tunnel_is_forwarded_as_a_request_that_ends_the_connection() {
        let connect = "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n";
        for body in ["\r\n", "Content-Length: 2\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            let stream = format!("{connect}{body}GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            for size in 1..=stream.len() {
                let (found, framing) = requests(stream.as_bytes(), size);
                assert_eq!(found, ["CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nconnection: close\r\n\r\n"]);
                assert_eq!(framing.part, Part::Nothing);
            }
        }
    }

    #[test]
    fn a_head_without_end_is_forwarded_unfinished_and_takes_no_time() {
        let lines = [&b"GET / HTTP/1.1\r\n"[..], &b"X: y\r\n".repeat(90), b"Y: ", &vec![b'x'; MAX_HEAD_LEN]].concat();
        let begun = std::time::Instant::now();
        for stream in [lines, [&b"\r\n".repeat(MAX_HEAD_LEN)[..], b"G"].concat()] {
            let (found, framing) = requests(&stream, 1);
            match framing.part {
                Part::Nothing => assert!(found.concat().len() > MAX_HEAD_LEN),
                part => assert_eq!((part, found.len()), (Part::Head, 0)),
            }
        }
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}
