//! Damages inputs, the same way in every run.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Longest input, in bytes: what is longer is refused for its length.
const MAX_LEN: usize = 8000;

/// Pieces that parsers have stumbled over.
const PIECES: [&[u8]; 36] = [
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"\x7f",
    b"\r\n",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\\u202e",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"0.1",
    b"%",
    b"%00",
    b"%zz",
    b"&",
    b"=",
    b"+",
    b"..",
    b"=&=&",
    b"tdb_",
];

/// The inputs of a corpus and as many damaged ones as `FUZZ_INPUTS` says, 200 by default.
pub fn inputs(corpus: &str, seed: u64) -> Vec<Vec<u8>> {
    let corpus: Vec<Vec<u8>> = corpus.lines().map(unescape).collect();
    let count = std::env::var("FUZZ_INPUTS").map_or(200, |count| count.parse().expect("FUZZ_INPUTS is a number"));
    let mut mutator = Mutator::new(seed);
    let damaged: Vec<_> = (0..count).map(|_| mutator.damage(&corpus)).collect();
    corpus.into_iter().chain(damaged).collect()
}

/// What a line of a corpus stands for: the inverse of `escape_ascii`.
fn unescape(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("something is escaped") {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}

/// A source of chance that is the same in every run.
pub struct Mutator(SmallRng);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// One of these.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.0.random_range(0..from.len())]
    }

    /// A place in an input, also its end.
    fn place(&mut self, input: &[u8]) -> usize {
        self.0.random_range(0..=input.len())
    }

    /// One of the corpus, damaged one to four times.
    fn damage(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.choose(corpus).clone();
        for _ in 0..self.0.random_range(1..=4) {
            let (from, to) = (self.place(&input), self.place(&input));
            let (from, to) = (from.min(to), from.max(to));
            match self.0.random_range(0..7) {
                0 if !input.is_empty() => {
                    let at = self.0.random_range(0..input.len());
                    input[at] ^= 1 << self.0.random_range(0..8);
                }
                1 => drop(input.drain(from..to)),
                2 => {
                    let piece = input[from..to].to_vec();
                    drop(input.splice(to..to, piece));
                }
                3 => {
                    let other = self.choose(corpus).clone();
                    let rest = self.place(&other);
                    drop(input.splice(from.., other[rest..].iter().copied()));
                }
                4 => input.truncate(to),
                _ => {
                    let piece = *self.choose(&PIECES);
                    drop(input.splice(from..from, piece.iter().copied()));
                }
            }
            input.truncate(MAX_LEN);
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_stand_for_any_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&all.escape_ascii().to_string()), all);
    }
}
