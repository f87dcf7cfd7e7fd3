//! Where one HTTP/1 request ends and the next begins (RFC 9112, section 6), and what of a request's head is left out.
//!
//! Pure: bytes in, bytes out. It does not judge requests, actix does: whatever is not plainly well formed goes on as it
//! came, with all that follows, and actix refuses it and closes the connection.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use httparse::{Header, Status};

/// Headers that actix reads at most; more are its to refuse.
const MAX_HEADERS: usize = 96;
/// A head that is longer goes on in pieces: actix refuses it with 431.
const MAX_HEAD: usize = 128 << 10;
/// A line within a chunked body that is longer goes on as it is.
const MAX_LINE: usize = 16 << 10;

/// What part of a request comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    /// This many bytes of a body.
    Body(u64),
    /// The line before a chunk (RFC 9112, section 7.1).
    ChunkSize,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The line break after a chunk.
    ChunkEnd,
    /// The lines after the last chunk.
    Trailer,
    /// Everything, for ever: no request of ours.
    Rest,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Framing {
    part: Part,
    /// Bytes of an incomplete head that were looked at.
    searched: usize,
}

impl Framing {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self { part: Part::Head, searched: 0 }
    }

    /// Whether the next byte begins a request.
    pub fn between_requests(&self) -> bool {
        self.part == Part::Head
    }

    /// No more bytes come: what there is of a request goes on as it is.
    pub fn end(&mut self) {
        self.part = Part::Rest;
    }

    /// Takes from `bytes` what can go on to actix now; `None` until more bytes have come. It never takes more than one
    /// request's head at a time, and nothing that follows it.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Option<BytesMut> {
        while !bytes.is_empty() {
            match self.part {
                Part::Head => {
                    let complete = self.may_be_complete(bytes);
                    self.searched = bytes.len();
                    if !complete {
                        return None;
                    }
                    match read_head(bytes) {
                        Found::Head { length, body, rewritten } => {
                            (self.part, self.searched) = (body, 0);
                            let head = bytes.split_to(length);
                            return Some(rewritten.unwrap_or(head));
                        }
                        Found::Incomplete if bytes.len() <= MAX_HEAD => return None,
                        Found::Incomplete | Found::Other => self.part = Part::Rest,
                    }
                }
                Part::Body(left) => {
                    let taken = take(bytes, left);
                    self.part = Part::of_length(left - taken.len() as u64);
                    return Some(taken);
                }
                Part::Chunk(left) => {
                    let taken = take(bytes, left);
                    let left = left - taken.len() as u64;
                    self.part = if left == 0 { Part::ChunkEnd } else { Part::Chunk(left) };
                    return Some(taken);
                }
                Part::ChunkSize => match httparse::parse_chunk_size(bytes) {
                    Ok(Status::Complete((length, size))) => {
                        self.part = if size == 0 { Part::Trailer } else { Part::Chunk(size) };
                        return Some(bytes.split_to(length));
                    }
                    Ok(Status::Partial) if bytes.len() <= MAX_LINE => return None,
                    Ok(Status::Partial) | Err(_) => self.part = Part::Rest,
                },
                Part::ChunkEnd if bytes.starts_with(b"\r\n") => {
                    self.part = Part::ChunkSize;
                    return Some(bytes.split_to(2));
                }
                Part::ChunkEnd if bytes[..] == *b"\r" => return None,
                Part::ChunkEnd => self.part = Part::Rest,
                Part::Trailer => match bytes.iter().position(|&byte| byte == b'\n') {
                    Some(end) => {
                        if bytes.starts_with(b"\r\n") {
                            self.part = Part::Head;
                        }
                        return Some(bytes.split_to(end + 1));
                    }
                    None if bytes.len() <= MAX_LINE => return None,
                    None => self.part = Part::Rest,
                },
                Part::Rest => return Some(bytes.split()),
            }
        }
        None
    }

    /// False while a head that was incomplete has got no empty line: parsing it again for every byte that comes
    /// would take time without end.
    fn may_be_complete(&self, bytes: &[u8]) -> bool {
        let new = &bytes[self.searched.saturating_sub(3).min(bytes.len())..];
        self.searched == 0
            || bytes.len() > MAX_HEAD
            || new.windows(2).any(|pair| pair == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n")
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

enum Found {
    Head {
        length: usize,
        body: Part,
        /// The head without an offer to change the protocol, if there was one.
        rewritten: Option<BytesMut>,
    },
    Incomplete,
    /// Nothing that actix would answer and go on.
    Other,
}

fn read_head(bytes: &[u8]) -> Found {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Found::Incomplete,
        Err(_) => return Found::Other,
    };
    let Some(body) = body(&request) else { return Found::Other };
    Found::Head { length, body, rewritten: without_upgrade(&request) }
}

/// What follows the head. `None` where that is ambiguous (RFC 9112, section 6.3), and after CONNECT: a tunnel.
fn body(request: &httparse::Request<'_, '_>) -> Option<Part> {
    if request.method == Some("CONNECT") {
        return None;
    }
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

/// The head without `Upgrade` and what goes with it in `Connection`; `None` if nothing of it is there.
///
/// No other protocol is spoken here, so an offer to change is ignored (RFC 9110, section 7.8). actix would take an
/// `Upgrade: websocket` for the end of all framing, and answer `Connection: upgrade` with the same.
fn without_upgrade(request: &httparse::Request<'_, '_>) -> Option<BytesMut> {
    let offers = |header: &Header<'_>| {
        header.name.eq_ignore_ascii_case("upgrade")
            || (header.name.eq_ignore_ascii_case("connection") && options(header).any(is_upgrade))
    };
    if !request.headers.iter().any(offers) {
        return None;
    }
    let mut head = BytesMut::new();
    let (method, path, version) = (request.method?, request.path?, request.version?);
    head.extend_from_slice(format!("{method} {path} HTTP/1.{version}\r\n").as_bytes());
    for header in request.headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("upgrade")) {
        let value = if header.name.eq_ignore_ascii_case("connection") {
            let kept: Vec<&[u8]> = options(header).filter(|option| !is_upgrade(option)).collect();
            if kept.is_empty() {
                continue;
            }
            kept.join(&b", "[..])
        } else {
            header.value.to_vec()
        };
        head.extend_from_slice(header.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(&value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// The options of a `Connection` header (RFC 9110, section 7.6.1).
fn options<'a>(header: &Header<'a>) -> impl Iterator<Item = &'a [u8]> {
    header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

fn is_upgrade(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"upgrade") || option.eq_ignore_ascii_case(b"http2-settings")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes on, request by request, when `stream` comes in pieces of `size` bytes.
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

    #[track_caller]
    fn assert_split(expected: &[&str]) {
        let stream = expected.concat();
        for size in 1..=stream.len() {
            let (found, framing) = requests(stream.as_bytes(), size);
            assert_eq!(found, expected, "in pieces of {size}");
            assert!(framing.between_requests());
        }
    }

    #[test]
    fn requests_are_told_apart_wherever_the_stream_is_cut() {
        assert_split(&[
            "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  13 \r\n\r\n{\"title\":\"x\"}",
            "HEAD /health HTTP/1.0\r\n\r\n",
            "POST /todos HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nHost: x\r\n\r\n\
             4\r\nGET \r\nA;ext=\"x\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
            "POST /todos HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "DELETE /a HTTP/1.1\nHost: x\n\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ]);
    }

    #[test]
    fn an_offer_to_change_the_protocol_is_left_out() {
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
        ] {
            for size in 1..=head.len() {
                assert_eq!(requests(head.as_bytes(), size).0, [expected], "in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_not_plainly_well_formed_goes_on_as_it_came() {
        for stream in [
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: \r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "no request\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nbad header\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            for size in 1..=stream.len() {
                let (found, framing) = requests(stream.as_bytes(), size);
                assert_eq!((found.concat().as_str(), framing.part), (stream, Part::Rest), "in pieces of {size}");
            }
        }
        for chunked in ["zz\r\n", "1\r\nabc\r\n", "1\r\na\rb"] {
            let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}");
            let (found, framing) = requests(stream.as_bytes(), 1);
            assert_eq!((found.concat(), framing.part), (stream, Part::Rest));
        }
    }

    #[test]
    fn a_head_without_end_goes_on_and_takes_no_time() {
        let stream = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; MAX_HEAD]].concat();
        let begun = std::time::Instant::now();
        let (found, framing) = requests(&stream, 1);
        assert_eq!((found.concat().len(), framing.part), (stream.len(), Part::Rest));
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn at_the_end_a_part_of_a_request_goes_on() {
        let (mut framing, mut bytes) = (Framing::new(), BytesMut::from("GET / HT"));
        assert_eq!(framing.next(&mut bytes), None);
        framing.end();
        assert_eq!(framing.next(&mut bytes).unwrap(), "GET / HT");
    }
}
