//! Passwords that are in files.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// Reads a password from the first line of a file or of standard input, without the line break and without a byte order
/// mark. Reads no more than that line, and at most 4 KiB.
pub fn read_line(input: impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    BufReader::new(input.take(4096)).read_until(b'\n', &mut line)?;
    let line = String::from_utf8(line).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))?;
    let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_and_nothing_after_it_is_read() {
        for (input, password) in [
            (&b""[..], ""),
            (b"a b", "a b"),
            (b" a b \r\nsecond", " a b "),
            ("\u{feff}ä\n".as_bytes(), "ä"),
            (b"first\n\xff\xfe", "first"),
        ] {
            assert_eq!(read_line(input).unwrap(), password);
        }
        assert!(read_line(&b"\xff\n"[..]).is_err());
        assert_eq!(read_line(io::repeat(b'x')).unwrap().len(), 4096);
    }
}
