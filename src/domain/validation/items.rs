//! Reads the items of a long body one by one, as it arrives: those of one JSON array, or JSON values that follow each
//! other, such as one a line (NDJSON).

use serde_json::{Deserializer, Value, json};

use super::{Location, ValidationError, location, offset_in, reason};

/// Largest item, in bytes: otherwise a body that is one item would be read again and again while it arrives.
const MAX_ITEM_LEN: usize = 256 << 10;

/// May be ignored (RFC 8259, section 8.1).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The items of a body of which some has arrived.
#[derive(Debug, Default)]
pub struct Items {
    /// What has arrived and is not read yet, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Characters before that.
    characters: usize,
    /// The number of items that were read.
    count: usize,
    state: State,
}

/// What comes next, besides white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// The beginning: an array, or the first of several values.
    #[default]
    Start,
    /// One of several values, or the end.
    Value,
    /// The first item of an array, or its end.
    First,
    /// An item of an array.
    Item,
    /// What separates two items of an array, or its end.
    Separator,
    /// Nothing: the array is over.
    End,
}

impl Items {
    /// More of the body has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item, and its index. `Ok(None)`: the rest has not arrived yet, or, with `is_all`, there is none. After an
    /// error there is nothing to be read any more.
    pub fn next(&mut self, is_all: bool) -> Result<Option<(usize, Value)>, Box<ValidationError>> {
        loop {
            if self.is_at_start() && BYTE_ORDER_MARK.starts_with(&self.buffer) && !is_all {
                return Ok(None);
            }
            self.skip_white_space();
            let Some(&byte) = self.buffer.get(self.start) else {
                return if is_all { self.end().map(|()| None) } else { Ok(None) };
            };
            self.state = match (self.state, byte) {
                (State::Start, b'[') => State::First,
                (State::First | State::Separator, b']') => State::End,
                (State::Separator, b',') => State::Item,
                (State::Separator, _) => return Err(self.invalid("expected `,` or `]`", 0)),
                (State::End, _) => return Err(self.invalid("trailing characters", 0)),
                (State::Start, _) => {
                    self.state = State::Value;
                    continue;
                }
                (State::Value | State::First | State::Item, _) => return self.read(is_all),
            };
            self.advance(1);
        }
    }

    fn read(&mut self, is_all: bool) -> Result<Option<(usize, Value)>, Box<ValidationError>> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let mut values = Deserializer::from_slice(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(_)) if values.byte_offset() > MAX_ITEM_LEN => Err(self.too_long()),
            Some(Ok(value)) => {
                let length = values.byte_offset();
                self.advance(length);
                self.state = if self.state == State::Value { State::Value } else { State::Separator };
                let index = self.count;
                self.count += 1;
                Ok(Some((index, value)))
            }
            Some(Err(error)) if error.is_eof() && !is_all && rest.len() <= MAX_ITEM_LEN => Ok(None),
            Some(Err(error)) if error.is_eof() && rest.len() > MAX_ITEM_LEN => Err(self.too_long()),
            Some(Err(error)) => {
                let at = offset_in(&String::from_utf8_lossy(rest), &error);
                Err(self.invalid(&reason(&error), at))
            }
            None => Ok(None),
        }
    }

    /// The end of the body: nothing may be missing.
    fn end(&self) -> Result<(), Box<ValidationError>> {
        match self.state {
            State::Start | State::Value | State::End => Ok(()),
            State::First | State::Item | State::Separator => Err(self.invalid("EOF while parsing a list", 0)),
        }
    }

    fn too_long(&self) -> Box<ValidationError> {
        let at = vec!["body".into(), self.count.into()];
        let msg = format!("An item should have at most {MAX_ITEM_LEN} bytes");
        Box::new(ValidationError::at("too_long", at, msg, Value::Null).with(json!({ "max_length": MAX_ITEM_LEN })))
    }

    fn invalid(&self, reason: &str, characters: usize) -> Box<ValidationError> {
        let mut loc: Vec<Location> = location(&["body"]);
        loc.push((self.characters + characters).into());
        let error = ValidationError::at("json_invalid", loc, "JSON decode error", json!({}));
        Box::new(error.with(json!({ "error": reason })))
    }

    fn is_at_start(&self) -> bool {
        self.state == State::Start && self.characters == 0 && self.start == 0
    }

    fn skip_white_space(&mut self) {
        if self.is_at_start() && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.advance(BYTE_ORDER_MARK.len());
        }
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        self.advance(rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count());
    }

    fn advance(&mut self, bytes: usize) {
        let passed = self.buffer.get(self.start..self.start + bytes).unwrap_or_default();
        // Those that don't continue a character of UTF-8.
        self.characters += passed.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count();
        self.start += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The items of a body that arrives in pieces of this size, and what is wrong after them.
    fn read(body: &[u8], piece: usize) -> (Vec<Value>, Option<ValidationError>) {
        let (mut items, mut read) = (Items::default(), Vec::new());
        let mut pieces = body.chunks(piece);
        loop {
            let arrived = pieces.next();
            items.push(arrived.unwrap_or_default());
            loop {
                match items.next(arrived.is_none()) {
                    Ok(Some((index, item))) => {
                        assert_eq!(index, read.len());
                        read.push(item);
                    }
                    Ok(None) => break,
                    Err(error) => return (read, Some(*error)),
                }
            }
            if arrived.is_none() {
                return (read, None);
            }
        }
    }

    #[test]
    fn items_are_the_same_in_an_array_and_in_lines_however_they_arrive() {
        let items = json!([{"a": "ü, ] } \" \\"}, {"b": [1, [2, {}]]}, {}]);
        let lines: Vec<String> = items.as_array().unwrap().iter().map(Value::to_string).collect();
        let bodies = [
            items.to_string(),
            format!(" [\n {} \n]\n", lines.join(" ,\r\n")),
            format!("\u{feff}{items}"),
            lines.join("\n"),
            format!("\n\n{}\r\n\n", lines.join("\r\n\n")),
            lines.concat(),
            format!("\u{feff}{}", lines.join("\n")),
        ];
        for body in bodies {
            for piece in [1, 2, 3, 7, 1000] {
                assert_eq!(read(body.as_bytes(), piece), (items.as_array().unwrap().clone(), None), "{body} {piece}");
            }
        }
        for nothing in ["", " \n", "[]", " [ ] ", "\u{feff}"] {
            assert_eq!(read(nothing.as_bytes(), 1), (Vec::new(), None), "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_json_is_said_with_its_offset() {
        for (body, count, at, error) in [
            ("[", 0, 1, "EOF while parsing a list"),
            ("[{}", 1, 3, "EOF while parsing a list"),
            ("[{},", 1, 4, "EOF while parsing a list"),
            ("[{},]", 1, 4, "expected value"),
            ("[,{}]", 0, 1, "expected value"),
            ("[{} {}]", 1, 4, "expected `,` or `]`"),
            ("[{}] {}", 1, 5, "trailing characters"),
            ("{\"é\": 1}\n{\"ü\": x}", 1, 15, "expected value"),
            ("{}\n]", 1, 3, "expected value"),
            ("{}\n{\"a", 1, 6, "EOF while parsing a string"),
        ] {
            for piece in [1, 3, 1000] {
                let (items, found) = read(body.as_bytes(), piece);
                let found = found.unwrap();
                assert_eq!((items.len(), found.kind), (count, "json_invalid"), "{body}");
                assert_eq!(found.loc, vec!["body".into(), Location::from(at)], "{body}");
                assert_eq!(found.ctx, Some(json!({ "error": error })), "{body}");
            }
        }
        assert_eq!(read(b"{\"a\": \"\xff\"}", 1).1.unwrap().kind, "json_invalid");
    }

    #[test]
    fn an_item_has_a_limit_and_is_not_read_again_for_each_byte() {
        let long = format!("[{{}}, {{\"a\": \"{}\"}}]", "x".repeat(MAX_ITEM_LEN));
        let (items, error) = read(long.as_bytes(), 16 << 10);
        let error = error.unwrap();
        assert_eq!((items.len(), error.kind, error.loc), (1, "too_long", vec!["body".into(), 1.into()]));
        let fits = format!("[{{\"a\": \"{}\"}}]", "x".repeat(MAX_ITEM_LEN - 100));
        assert_eq!(read(fits.as_bytes(), 16 << 10).0.len(), 1);
    }
}
