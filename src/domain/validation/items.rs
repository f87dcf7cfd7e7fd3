//! Reads the items of a long body one by one, as it arrives: those of one JSON array, or JSON values that follow each
//! other, such as one a line (NDJSON).

use serde_json::{Deserializer, Value, json};

use super::{ValidationError, no_json, offset_in, reason};

/// Largest item, in bytes: it is in memory until it is complete.
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
    /// Lines before that.
    lines: usize,
    /// The number of items that were read.
    count: usize,
    state: State,
    /// The next item is not complete before so much of it has arrived: otherwise it would be read again with each piece.
    wait_for: usize,
    #[cfg(test)]
    attempts: usize,
}

/// One of them.
#[derive(Debug, PartialEq)]
pub struct Item {
    /// Its index, from 0.
    pub index: usize,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// What it is.
    pub value: Value,
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

    /// The next item. `Ok(None)`: the rest has not arrived yet, or, with `is_all`, there is none. After an
    /// error there is nothing to be read any more.
    pub fn next(&mut self, is_all: bool) -> Result<Option<Item>, Box<ValidationError>> {
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
                (State::Separator, _) => return Err(self.invalid("expected `,` or `]`", "")),
                (State::End, _) => return Err(self.invalid("trailing characters", "")),
                (State::Start, _) => {
                    self.state = State::Value;
                    continue;
                }
                (State::Value | State::First | State::Item, _) => return self.read(is_all),
            };
            self.advance(1);
        }
    }

    fn read(&mut self, is_all: bool) -> Result<Option<Item>, Box<ValidationError>> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        if rest.len() < self.wait_for && !is_all {
            return Ok(None);
        }
        #[cfg(test)]
        {
            self.attempts += 1;
        }
        let mut values = Deserializer::from_slice(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(_)) if values.byte_offset() > MAX_ITEM_LEN => Err(self.too_long()),
            Some(Ok(value)) => {
                let (length, index, line) = (values.byte_offset(), self.count, self.lines + 1);
                self.advance(length);
                self.state = if self.state == State::Value { State::Value } else { State::Separator };
                self.count += 1;
                self.wait_for = 0;
                Ok(Some(Item { index, line, value }))
            }
            Some(Err(error)) if error.is_eof() && !is_all && rest.len() <= MAX_ITEM_LEN => {
                self.wait_for = (2 * rest.len()).min(MAX_ITEM_LEN + 1);
                Ok(None)
            }
            Some(Err(error)) if error.is_eof() && rest.len() > MAX_ITEM_LEN => Err(self.too_long()),
            Some(Err(error)) => {
                let text = String::from_utf8_lossy(rest);
                let before: String = text.chars().take(offset_in(&text, &error)).collect();
                Err(self.invalid(&reason(&error), &before))
            }
            None => Ok(None),
        }
    }

    /// The end of the body: nothing may be missing.
    fn end(&self) -> Result<(), Box<ValidationError>> {
        match self.state {
            State::Start | State::Value | State::End => Ok(()),
            State::First | State::Item | State::Separator => Err(self.invalid("EOF while parsing a list", "")),
        }
    }

    fn too_long(&self) -> Box<ValidationError> {
        let at = vec!["body".into(), self.count.into()];
        let msg = format!("An item should have at most {MAX_ITEM_LEN} bytes");
        let ctx = json!({ "max_length": MAX_ITEM_LEN, "line": self.lines + 1 });
        Box::new(ValidationError::at("too_long", at, msg, Value::Null).with(ctx))
    }

    /// What is behind `before`, which comes next, is no JSON.
    fn invalid(&self, reason: &str, before: &str) -> Box<ValidationError> {
        let line = self.lines + before.matches('\n').count() + 1;
        Box::new(no_json(self.characters + before.chars().count(), reason).and("line", line))
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
        self.lines += passed.iter().filter(|byte| **byte == b'\n').count();
        self.start += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Location;
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
                    Ok(Some(item)) => {
                        assert_eq!(item.index, read.len());
                        read.push(item.value);
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
    fn an_item_has_the_line_on_which_it_begins() {
        let mut items = Items::default();
        items.push(b"\n{\n}\r\n{} {}\n\n{}");
        let lines: Vec<usize> = std::iter::from_fn(|| items.next(true).unwrap()).map(|item| item.line).collect();
        assert_eq!(lines, [2, 4, 4, 6]);
    }

    #[test]
    fn what_is_no_json_is_said_with_its_offset() {
        for (body, count, at, line, error) in [
            ("[", 0, 1, 1, "EOF while parsing a list"),
            ("[{}", 1, 3, 1, "EOF while parsing a list"),
            ("[{},\n", 1, 5, 2, "EOF while parsing a list"),
            ("[{},]", 1, 4, 1, "expected value"),
            ("[,{}]", 0, 1, 1, "expected value"),
            ("[{} {}]", 1, 4, 1, "expected `,` or `]`"),
            ("[{}] {}", 1, 5, 1, "trailing characters"),
            ("{\"é\": 1}\n{\"ü\": x}", 1, 15, 2, "expected value"),
            ("{}\n\n]", 1, 4, 3, "expected value"),
            ("{}\n{\"a\":\n1,\nx", 1, 12, 4, "key must be a string"),
            ("{}\n{\"a", 1, 6, 2, "EOF while parsing a string"),
        ] {
            for piece in [1, 3, 1000] {
                let (items, found) = read(body.as_bytes(), piece);
                let found = found.unwrap();
                assert_eq!((items.len(), found.kind), (count, "json_invalid"), "{body}");
                assert_eq!(found.loc, vec!["body".into(), Location::from(at)], "{body}");
                assert_eq!(found.ctx, Some(json!({ "error": error, "line": line })), "{body}");
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
        let mut items = Items::default();
        for byte in fits.as_bytes() {
            items.push(&[*byte]);
            assert!(items.next(false).unwrap().is_none() || items.count == 1);
        }
        assert!(items.next(true).unwrap().is_some() || items.count == 1);
        assert!(items.attempts < 25, "{}", items.attempts);
    }
}
