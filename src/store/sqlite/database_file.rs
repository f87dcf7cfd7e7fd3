//! The database as a file: its real name, the lock that keeps a second process away, its mode and owner.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::DatabaseError;

/// Symbolic links to follow on the way to a database, as many as Linux follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Keeps other processes away from a database, until it is dropped.
///
/// All names of the file share one lock: symbolic links are resolved first, and on Linux the file itself is locked,
/// too, whatever name (a hard link, a bind mount) it is opened by.
#[derive(Debug)]
pub struct DatabaseLock {
    path: PathBuf,
    /// A separate file beside the database: except on Linux, locking the database file itself would interfere with
    /// SQLite's locks.
    _beside: File,
    /// Linux: flock and SQLite's POSIX locks don't see each other (flock(2)).
    _file: Option<File>,
}

impl DatabaseLock {
    /// Locks the database `named`; if there is none, creates an empty file, which is a database to SQLite.
    pub fn take_or_create(named: &Path) -> Result<Self, DatabaseError> {
        if !named.exists() {
            // If it is a dangling link, this creates its target.
            private(File::options().write(true).create(true).truncate(false))
                .open(named)
                .map_err(DatabaseError::io("create the database", named))?;
        }
        Self::take(named, &real_path(named)?)
    }

    /// Locks the database `named`, which need not exist.
    pub fn take_if_there(named: &Path) -> Result<Self, DatabaseError> {
        if named.exists() {
            return Self::take(named, &real_path(named)?);
        }
        let mut path = named.to_owned();
        for _ in 0..MAX_LINKS {
            let Ok(target) = std::fs::read_link(&path) else { break };
            path = parent(&path).join(target);
        }
        let no_name = || DatabaseError::BadName { path: named.to_owned(), what: "file" };
        let name = path.file_name().ok_or_else(no_name)?;
        Self::take(named, &real_path(parent(&path))?.join(name))
    }

    fn take(named: &Path, path: &Path) -> Result<Self, DatabaseError> {
        let locked = || DatabaseError::Locked { path: named.to_owned() };
        let name = with_suffix(path, ".lock");
        let beside = private(File::options().create(true).truncate(false).write(true))
            .open(&name)
            .map_err(DatabaseError::io("open", &name))?;
        match beside.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked()),
            Err(TryLockError::Error(e)) => return Err(DatabaseError::io("lock", &name)(e)),
        }
        // If root created it, a service that runs as the database's owner could not open it.
        let owner = Owner::of_database(path).map_err(DatabaseError::io("look at the owner of", &name))?;
        owner.give(&beside);
        let file = Self::lock_itself(path).map_err(|e| match e {
            TryLockError::WouldBlock => locked(),
            TryLockError::Error(e) => DatabaseError::io("open the database", named)(e),
        })?;
        refuse_unknown_names(named)?;
        Ok(Self { path: path.to_owned(), _beside: beside, _file: file })
    }

    /// Locks the database file itself, if there is one.
    fn lock_itself(path: &Path) -> Result<Option<File>, TryLockError> {
        if !cfg!(target_os = "linux") || !path.exists() {
            return Ok(None);
        }
        let file = File::options().read(true).write(true).open(path).map_err(TryLockError::Error)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
            // Some file systems don't support it; then the lock beside the file has to do.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
        }
    }

    /// The database's real name: absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Refuses a database that may last have been written under another name, so that its log is not beside this one.
pub fn refuse_unknown_names(named: &Path) -> Result<(), DatabaseError> {
    if !named.exists() {
        return Ok(());
    }
    let unknown = has_unknown_names(&real_path(named)?).map_err(DatabaseError::io("look at the names of", named))?;
    if unknown { Err(DatabaseError::UnknownName { path: named.to_owned() }) } else { Ok(()) }
}

/// Whether the database has other names than `path` under which it may last have been written: SQLite looks for its log
/// only beside the name that the file is opened by
/// (<https://sqlite.org/howtocorrupt.html#multiple_links_to_the_same_file>).
#[cfg(unix)]
fn has_unknown_names(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path)?;
    let is_log = |log: Metadata| log.len() > 0;
    if file.nlink() < 2 || std::fs::metadata(with_suffix(path, "-wal")).is_ok_and(is_log) {
        return Ok(false);
    }
    // An interrupted restore leaves these; nothing was ever written under such a name.
    let mut known = 1;
    for n in 1.. {
        match std::fs::metadata(replaced(path, n)) {
            Ok(other) => known += u64::from((other.dev(), other.ino()) == (file.dev(), file.ino())),
            Err(_) => break,
        }
    }
    Ok(file.nlink() > known)
}

#[cfg(not(unix))]
fn has_unknown_names(_: &Path) -> io::Result<bool> {
    Ok(false)
}

/// The nth name for a database that a restore has replaced.
pub fn replaced(path: &Path, n: usize) -> PathBuf {
    with_suffix(path, &format!(".replaced-{n}"))
}

/// A file's owner, group and mode.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    #[cfg(unix)]
    user_and_group: (u32, u32),
    #[cfg(unix)]
    mode: u32,
}

impl Owner {
    /// Those of the database at `path`; if there is none, its directory's owner and group, and mode 0600.
    pub fn of_database(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Ok(Self::from(&std::fs::metadata(parent(path))?).private())
            }
            found => Ok(Self::from(&found?)),
        }
    }

    /// Creates a file with this owner, group and mode. Where owner or group can't be set, only the file's own owner
    /// gets access. An error if the file exists.
    pub fn create(self, path: &Path) -> io::Result<()> {
        let file = private(File::options().write(true).create_new(true)).open(path)?;
        self.give(&file);
        #[cfg(unix)]
        {
            let same = Self::from(&file.metadata()?).user_and_group == self.user_and_group;
            let mode = if same { self.mode } else { self.mode & 0o700 };
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        Ok(())
    }

    #[cfg(unix)]
    fn private(self) -> Self {
        Self { mode: 0o600, ..self }
    }

    #[cfg(not(unix))]
    fn private(self) -> Self {
        self
    }

    /// Changes the owner and group of `file` as far as permitted: only root may give files away, others may choose
    /// among their groups.
    #[cfg(unix)]
    fn give(self, file: &File) {
        let (user, group) = self.user_and_group;
        if std::os::unix::fs::fchown(file, Some(user), Some(group)).is_err() {
            // Whether that worked is checked where it matters.
            let _ = std::os::unix::fs::fchown(file, None, Some(group));
        }
    }

    #[cfg(not(unix))]
    fn give(self, _: &File) {}
}

impl From<&Metadata> for Owner {
    #[cfg(unix)]
    fn from(file: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { user_and_group: (file.uid(), file.gid()), mode: file.mode() & 0o777 }
    }

    #[cfg(not(unix))]
    fn from(_: &Metadata) -> Self {
        Self {}
    }
}

/// A created file is for this user alone.
fn private(options: &mut std::fs::OpenOptions) -> &mut std::fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// The directory that a file is in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn real_path(path: &Path) -> Result<PathBuf, DatabaseError> {
    path.canonicalize().map_err(DatabaseError::io("find", path))
}

/// Creates the directory that the database is in.
pub fn make_parent(path: &Path) -> Result<(), DatabaseError> {
    let parent = parent(path);
    std::fs::create_dir_all(parent).map_err(DatabaseError::io("create the directory", parent))
}

/// The name of a file that belongs to `path`: `todos.db` and `-wal` give `todos.db-wal`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
