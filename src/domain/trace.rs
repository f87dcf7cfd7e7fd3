//! W3C Trace Context: the `traceparent` of a request is passed on in its event.

use std::fmt;

/// The header's name.
pub const HEADER: &str = "traceparent";

/// A valid `traceparent` of version 00: `00-TRACEID-PARENTID-FLAGS`
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// Length of a version 00 header.
    const LENGTH: usize = 55;

    /// Parses a header; `None` if it is not valid. Of a later version, the part that version 00 defines is read, as the
    /// specification demands.
    pub fn parse(header: &str) -> Option<Self> {
        let prefix = header.get(..Self::LENGTH)?;
        let rest = &header[Self::LENGTH..];
        let parts: Vec<&str> = prefix.split('-').collect();
        let [version, trace_id, parent_id, flags] = parts[..] else { return None };
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        let valid = hex(version, 2)
            && version != "ff"
            && hex(trace_id, 32)
            && !zero(trace_id)
            && hex(parent_id, 16)
            && !zero(parent_id)
            && hex(flags, 2)
            && (rest.is_empty() || (version != "00" && rest.starts_with('-')));
        valid.then(|| Self(format!("00-{trace_id}-{parent_id}-{flags}").into()))
    }

    /// A new trace, not sampled.
    pub fn random() -> Self {
        let trace_id: u128 = rand::random_range(1..=u128::MAX);
        let parent_id: u64 = rand::random_range(1..=u64::MAX);
        Self(format!("00-{trace_id:032x}-{parent_id:016x}-00").into())
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_header_is_kept() {
        assert_eq!(TraceParent::parse(VALID).unwrap().as_str(), VALID);
        assert!(TraceParent::parse(TraceParent::random().as_str()).is_some());
    }

    #[test]
    fn a_later_version_is_read_as_version_00() {
        let later = VALID.replacen("00", "01", 1) + "-more";
        assert_eq!(TraceParent::parse(&later).unwrap().as_str(), VALID);
    }

    #[test]
    fn what_is_not_valid_is_ignored() {
        for header in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(TraceParent::parse(header), None, "{header}");
        }
    }
}
