//! `.env`: settings for development, one `NAME=value` a line. Values are literal: nothing is substituted, escaped or
//! continued, so that a secret is what was written. Quotation marks and comments that could be read in two ways
//! are refused. An error never shows a value.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The settings of one file.
#[derive(Default)]
pub struct EnvFile {
    /// The file, with its directory.
    pub path: PathBuf,
    /// Names and values, in the file's order. No name is there twice.
    pub variables: Vec<(String, String)>,
}

/// Why a file can't be used: one line with the file, the line's number, the variable, and what is allowed.
#[derive(Debug, Error)]
pub enum EnvFileError {
    /// The file as a whole can't be read.
    #[error("{}: can't be read: {source}", path.display())]
    Unreadable {
        /// The file, with its directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A line is not a setting.
    #[error("{}, {source}", path.display())]
    Line {
        /// The file, with its directory.
        path: PathBuf,
        /// Which line, and what is wrong with it.
        source: LineError,
    },
}

/// What is wrong with a line. The text is fixed, but for the variable's name: no value gets into it.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("line {line}{}: {message}", variable.as_ref().map(|name| format!(", {name}")).unwrap_or_default())]
pub struct LineError {
    /// Counted from 1.
    line: usize,
    variable: Option<String>,
    message: &'static str,
}

impl EnvFile {
    /// Reads `path`; `None` if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, EnvFileError> {
        // The absolute path, so that nobody has to guess the working directory.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // A directory of this name is a virtual environment, not settings.
            Err(error) if error.kind() == ErrorKind::IsADirectory => return Ok(None),
            // A dangling link is a mistake, not a missing file.
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => return Ok(None),
            Err(source) => return Err(EnvFileError::Unreadable { path, source }),
        };
        match parse(&bytes) {
            Ok(variables) => Ok(Some(Self { path, variables })),
            Err(source) => Err(EnvFileError::Line { path, source }),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, LineError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let (mut variables, mut names) = (Vec::new(), HashSet::new());
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let error = |variable: Option<&str>, message| LineError {
            line: index + 1,
            variable: variable.map(str::to_owned),
            message,
        };
        let line = std::str::from_utf8(line).map_err(|_| error(None, "is not UTF-8 text"))?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        // What precedes the sign is only shown if it can be a name: it could be part of a value.
        let named = line.split_once('=').map(|(name, value)| (name.trim(), value)).filter(|(name, _)| is_name(name));
        let (name, value) = named.ok_or_else(|| {
            error(None, "is not NAME=value; a name has letters, digits and '_', and a value ends with its line")
        })?;
        let value = literal(value).map_err(|message| error(Some(name), message))?;
        if !names.insert(name.to_owned()) {
            return Err(error(Some(name), "is set for the second time; set it once"));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A value without the white space around it, and without quotation marks around the whole of it.
fn literal(text: &str) -> Result<&str, &'static str> {
    let value = text.trim();
    if value.contains(char::is_control) {
        return Err("has a control character in it, such as a CR alone; lines end with LF or CR LF");
    }
    for quote in ['"', '\''] {
        let Some(rest) = value.strip_prefix(quote) else { continue };
        return match rest.strip_suffix(quote) {
            Some(inside) if inside.trim() != inside => Err("begins or ends with white space, which is not kept"),
            Some(inside) if !inside.contains(quote) => Ok(inside),
            _ => Err("begins with a quotation mark; allowed are a value in one pair of them, which it does not \
                 contain itself, and a value that begins with another character"),
        };
    }
    // Other tools read this as a comment. Read literally, it would become part of a secret, or make a port no number.
    if text.split('#').rev().skip(1).any(|before| before.ends_with(char::is_whitespace)) {
        return Err("has ' #' in it; put a comment on a line of its own, or quotation marks around the value");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_literal() {
        for (line, value) in [
            ("A=abcdefghijklmnopqrstuvwxyz012345$ecretTail99", "abcdefghijklmnopqrstuvwxyz012345$ecretTail99"),
            ("A=${HOME}/x", "${HOME}/x"),
            ("A=correct horse battery", "correct horse battery"),
            ("A=it's-a-secret", "it's-a-secret"),
            ("A=back\\slash\\n", "back\\slash\\n"),
            ("A=\"in $quotes # all\\n of it\"", "in $quotes # all\\n of it"),
            ("A='single \"quotes\"'", "single \"quotes\""),
            ("A=a#b", "a#b"),
            ("A=#fff", "#fff"),
            ("A=base64==", "base64=="),
            ("A=say \"hi\"", "say \"hi\""),
            ("  export A =  x y  \r", "x y"),
            ("A=", ""),
            ("A=\"\"", ""),
            ("\u{feff}A=ä", "ä"),
        ] {
            assert_eq!(parsed(line), [("A".to_owned(), value.to_owned())], "{line:?}");
        }
        assert_eq!(parsed("# comment\n\n   # indented\nA=1\r\nB=2").len(), 2);
    }

    #[test]
    fn what_could_be_misread_is_refused_without_showing_it() {
        for (text, line, variable) in [
            ("A=1\nSECRET_KEY=\"secret begins", 2, Some("SECRET_KEY")),
            ("SECRET_KEY='it's-secret'", 1, Some("SECRET_KEY")),
            ("SECRET_KEY='secret\nSECOND=line'", 1, Some("SECRET_KEY")),
            ("SECRET_KEY=\"secret\" # comment", 1, Some("SECRET_KEY")),
            ("SECRET_KEY=secret # comment", 1, Some("SECRET_KEY")),
            ("SECRET_KEY= # secret", 1, Some("SECRET_KEY")),
            ("SECRET_KEY=se#cret\t#comment", 1, Some("SECRET_KEY")),
            ("SECRET_KEY=\"", 1, Some("SECRET_KEY")),
            ("SECRET_KEY=\" secret\"", 1, Some("SECRET_KEY")),
            ("SECRET_KEY='  '", 1, Some("SECRET_KEY")),
            ("DEBUG=False\rSECRET_KEY=secret\r", 1, Some("DEBUG")),
            ("PORT=1\nPORT=2", 2, Some("PORT")),
            ("\n\nsecret", 3, None),
            ("my secret = 1", 1, None),
            ("1SECRET=1", 1, None),
            ("=secret", 1, None),
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert_eq!((error.line, error.variable.as_deref()), (line, variable), "{text:?}");
            assert!(!error.message.contains("ecret"), "{text:?}: {}", error.message);
        }
        assert_eq!(parse(b"A=1\nB=\xff").expect_err("not UTF-8").line, 2);
    }

    #[test]
    fn an_error_is_one_line_that_names_the_file_the_line_and_the_variable() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".env");
        std::fs::write(&path, "DEBUG=True\nSECRET_KEY='it's-a-secret\nDAPR_API_TOKEN=token\n").unwrap();
        let text = EnvFile::read(&path).err().unwrap().to_string();
        assert!(text.starts_with(&format!("{}, line 2, SECRET_KEY: begins with", path.display())), "{text}");
        assert!(!text.contains('\n') && !text.contains("secret") && !text.contains("token"), "{text}");
    }

    #[test]
    fn no_file_and_a_directory_are_no_settings() {
        let directory = tempfile::tempdir().unwrap();
        assert!(EnvFile::read(&directory.path().join("none")).unwrap().is_none());
        assert!(EnvFile::read(directory.path()).unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_an_error_and_a_missing_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".env");
        assert!(EnvFile::read(&file).unwrap().is_none());
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        let error = EnvFile::read(&file).err().expect("an error").to_string();
        assert_eq!(error, format!("{}: can't be read: No such file or directory (os error 2)", file.display()));
        std::fs::write(directory.path().join("nowhere"), "A=1").unwrap();
        assert_eq!(EnvFile::read(&file).unwrap().expect("a file").variables.len(), 1);
    }
}
