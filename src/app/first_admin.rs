//! The first admin of a service in production: created at a start that finds no admin, from settings that are not looked
//! at any more once there is one.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::auth::password::{CheckError, Passwords, Turn};
use crate::auth::password_rules::{self, WeakPassword};
use crate::config::{Config, FirstAdmin, password_file};
use crate::domain::account::{AccountState, Role, User, Username};
use crate::store::decide::Refusal;
use crate::store::error::StoreError;
use crate::store::{AccountCommand, NewAccount, Store};

/// Why the first admin can't be created: one line that says what to do.
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[derive(Debug, Error)]
pub enum FirstAdminError {
    /// There is a password, and nobody whose it is.
    #[error("ADMIN_USERNAME: is not set, but its password is; set both or none")]
    NoName,
    /// Not a name.
    #[error("ADMIN_USERNAME: is not a valid username; use {}", Username::RULE)]
    Name,
    /// There is a name, and no password.
    #[error("ADMIN_PASSWORD: is not set; ADMIN_USERNAME needs it, or ADMIN_PASSWORD_FILE")]
    NoPassword,
    /// There are two passwords.
    #[error("ADMIN_PASSWORD_FILE: is set together with ADMIN_PASSWORD; set one")]
    TwoPasswords,
    /// Somebody has the name who is no admin: making one of them would surprise both.
    #[error(
        "ADMIN_USERNAME: {username} exists and is not an active admin; name another, or stop the service and use \
         `todo-backend user role {username} admin` and `todo-backend user enable {username}`"
    )]
    Exists { username: Username },
    /// Somebody had the name.
    #[error("ADMIN_USERNAME: {username} is the name of a deleted account, which stays taken; name another")]
    Deleted { username: Username },
    /// The file can't be read.
    #[error("ADMIN_PASSWORD_FILE: {} can't be read: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The environment's bytes are something else.
    #[error("ADMIN_PASSWORD: is not UTF-8")]
    NotText,
    /// The password is too weak.
    #[error("{variable}: {source}")]
    Weak { variable: &'static str, source: WeakPassword },
    /// The password can't be hashed.
    #[error("the first admin's password can't be hashed: {0}")]
    Hash(#[from] CheckError),
    /// The account can't be stored.
    #[error("the first admin can't be stored: {0}")]
    Store(#[from] StoreError),
}

/// Creates the first admin of the settings, if they name one and there is no admin.
pub async fn ensure(config: &Config, store: &Store, passwords: &Passwords) -> Result<(), FirstAdminError> {
    let settings = &config.first_admin;
    if *settings == FirstAdmin::default() || store.has_admin() {
        return Ok(());
    }
    let name = settings.username.as_ref().ok_or(FirstAdminError::NoName)?;
    let username = Username::parse(name).ok_or(FirstAdminError::Name)?;
    if let Some(holder) = store.account_named(name).await? {
        // In development, a demo user can be meant.
        return accept(username, &holder);
    }
    let (variable, password) = read_password(settings)?;
    password_rules::check(&password, name).map_err(|source| FirstAdminError::Weak { variable, source })?;
    let password_hash = passwords.hash(Turn::Newcomer, password).await?;
    let new = NewAccount { username: username.clone(), password_hash, role: Role::Admin };
    match store.apply_to_account(None, AccountCommand::Create(new)).await {
        Ok(admin) => {
            log::warn!("created the first admin, {}; ADMIN_USERNAME and {variable} can be removed now", admin.username);
            Ok(())
        }
        // Another process has started with the same settings.
        Err(StoreError::Refused(Refusal::NameTaken)) if let Some(holder) = store.account_named(name).await? => {
            accept(username, &holder)
        }
        Err(error) => Err(error.into()),
    }
}

/// The name is taken: by an admin, or not.
fn accept(username: Username, holder: &User) -> Result<(), FirstAdminError> {
    match holder.state {
        _ if holder.is_active_admin() => Ok(()),
        AccountState::Deleted => Err(FirstAdminError::Deleted { username }),
        AccountState::Active | AccountState::Disabled => Err(FirstAdminError::Exists { username }),
    }
}

/// The password, and which variable it comes from.
fn read_password(settings: &FirstAdmin) -> Result<(&'static str, String), FirstAdminError> {
    match (&settings.password, &settings.password_file) {
        (None, None) => Err(FirstAdminError::NoPassword),
        (Some(_), Some(_)) => Err(FirstAdminError::TwoPasswords),
        // What is not UTF-8 was read lossily.
        (Some(password), None) if password.expose().contains(char::REPLACEMENT_CHARACTER) => {
            Err(FirstAdminError::NotText)
        }
        (Some(password), None) => Ok(("ADMIN_PASSWORD", password.expose().to_owned())),
        (None, Some(path)) => {
            let line = File::open(path).and_then(password_file::read_line);
            let line = line.map_err(|source| FirstAdminError::File { path: path.clone(), source })?;
            Ok(("ADMIN_PASSWORD_FILE", line))
        }
    }
}
