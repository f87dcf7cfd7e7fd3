//! `todo-backend user`: accounts on the database of a service that is stopped.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};

use super::{missing, missing_file, no_account, open, report};
use crate::auth::password::{Passwords, Turn, validate_import};
use crate::auth::password_rules;
use crate::config::{Config, password_file};
use crate::domain;
use crate::domain::account::{User, UserId, Username};
use crate::store::decide::Refusal;
use crate::store::error::StoreError;
use crate::store::{AccountCommand, AccountUpdate, NewAccount, Store};

/// What can be done about accounts.
#[derive(Subcommand)]
pub enum Command {
    /// Create an account; the password is asked for, or read from standard input
    Add {
        /// The name to log in with: letters, digits and ._@+-
        name: String,
        /// Give it the role admin
        #[arg(long)]
        admin: bool,
        /// Instead of a password, its hash by another service: argon2id (PHC) or bcrypt; `-` reads it from standard
        /// input, where others on the machine can't see it
        #[arg(long, value_name = "HASH")]
        password_hash: Option<String>,
    },
    /// List all accounts: id, role, state, when it was created, name
    List,
    /// Set a password, which is asked for, or read from standard input; ends the account's tokens
    Password {
        /// The account's name
        name: String,
    },
    /// Give an account another role; ends its tokens
    Role {
        /// The account's name
        name: String,
        /// What it may do
        role: Role,
    },
    /// Keep an account from being used; its todos are kept
    Disable {
        /// The account's name
        name: String,
    },
    /// Let a disabled account be used again
    Enable {
        /// The account's name
        name: String,
    },
}

/// What an account may do.
#[derive(Clone, Copy, ValueEnum)]
pub enum Role {
    /// Its own todos
    User,
    /// Its own todos, and the routes under /admin
    Admin,
}

impl From<Role> for domain::account::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Admin => Self::Admin,
        }
    }
}

/// A command with all that it needs, so that nobody has to wait for the database while a password is typed.
enum Prepared {
    Create(NewAccount),
    List,
    Update { name: String, update: AccountUpdate, done: String },
}

/// Runs a command. An error is one line that says what to do.
pub async fn run(command: Command, config: &Config) -> Result<(), Box<dyn Error>> {
    let new_file = missing_file(config)?;
    if let Some(path) = new_file.filter(|_| !matches!(command, Command::Add { .. })) {
        return Err(missing(path).into());
    }
    let prepared = prepare(command).await?;
    let store = open(config, "its routes under /admin/users")?;
    let done = run_on(&store, prepared).await;
    let location = store.location();
    store.close();
    if new_file.is_some() && done.is_ok() {
        report(&format!("created the database {location}"))?;
    }
    done?.iter().try_for_each(|line| report(line))
}

async fn prepare(command: Command) -> Result<Prepared, Box<dyn Error>> {
    let update = |name, done: &str, update| Prepared::Update { name, update, done: done.to_owned() };
    let unchanged = AccountUpdate::default();
    Ok(match command {
        Command::List => Prepared::List,
        Command::Add { name, admin, password_hash } => {
            let username = Username::parse(&name)
                .ok_or_else(|| format!("{name:?} is not a valid username; use {}", Username::RULE))?;
            let password_hash = match password_hash {
                Some(hash) => imported(hash)?,
                None => new_password(&name).await?,
            };
            let role = if admin { Role::Admin } else { Role::User };
            Prepared::Create(NewAccount { username, password_hash, role: role.into() })
        }
        Command::Password { name } => {
            let password_hash = Some(new_password(&name).await?);
            update(name, "has a new password", AccountUpdate { password_hash, ..unchanged })
        }
        Command::Role { name, role } => {
            let role = domain::account::Role::from(role);
            let done = format!("has the role {}", role.name());
            update(name, &done, AccountUpdate { role: Some(role), ..unchanged })
        }
        Command::Disable { name } => update(name, "is disabled", AccountUpdate { enabled: Some(false), ..unchanged }),
        Command::Enable { name } => update(name, "is enabled", AccountUpdate { enabled: Some(true), ..unchanged }),
    })
}

/// Returns what to report.
async fn run_on(store: &Store, prepared: Prepared) -> Result<Vec<String>, Box<dyn Error>> {
    match prepared {
        Prepared::List => list(store).await,
        Prepared::Create(new) => {
            let name = new.username.to_string();
            let user = apply(store, &name, AccountCommand::Create(new)).await?;
            Ok(vec![format!("created {name} ({}) in {}", user.role.name(), store.location())])
        }
        Prepared::Update { name, update, done } => {
            let user = store.account_named(&name).await?;
            let user = user.ok_or_else(|| no_account(&name))?;
            apply(store, &name, AccountCommand::Update(user.id, update)).await?;
            Ok(vec![format!("{} {done}", user.username)])
        }
    }
}

async fn list(store: &Store) -> Result<Vec<String>, Box<dyn Error>> {
    let (users, _) = store.accounts(UserId::default(), usize::MAX).await?;
    let line = |user: &Arc<User>| {
        let (id, role, state) = (user.id, user.role.name(), user.state.name());
        let demo = if user.is_demo { "  (a demo user)" } else { "" };
        format!("{id:>6}  {role:<5}  {state:<8}  {}  {}{demo}", user.created_at, user.username)
    };
    Ok(if users.is_empty() { vec!["no accounts".to_owned()] } else { users.iter().map(line).collect() })
}

async fn apply(store: &Store, name: &str, command: AccountCommand) -> Result<Arc<User>, Box<dyn Error>> {
    store.apply_to_account(None, command).await.map_err(|error| match error {
        StoreError::Refused(Refusal::NameTaken) => format!("the name {name} is taken").into(),
        StoreError::Refused(Refusal::AccountDeleted) => format!("the account {name} is deleted").into(),
        StoreError::Refused(Refusal::LastAdmin) => format!(
            "{name} is the last active admin; first make another account an admin (todo-backend user role NAME admin) \
             or create one (todo-backend user add NAME --admin)"
        )
        .into(),
        other => Box::from(other),
    })
}

/// The hash of a password that is asked for twice on a terminal, and otherwise is the first line of standard input.
async fn new_password(username: &str) -> Result<Box<str>, Box<dyn Error>> {
    let password = if io::stdin().is_terminal() {
        let password = rpassword::prompt_password(format!("Password for {username}: "))?;
        password_rules::check(&password, username)?;
        if rpassword::prompt_password("Repeat the password: ")? != password {
            return Err("the two passwords are different".into());
        }
        password
    } else {
        first_line()?
    };
    password_rules::check(&password, username)?;
    Ok(Passwords::new(Arc::default())?.hash(Turn::Newcomer, password).await?)
}

/// A hash of another service.
fn imported(hash: String) -> Result<Box<str>, Box<dyn Error>> {
    let hash = if hash == "-" { first_line()? } else { hash };
    match validate_import(&hash) {
        Ok(()) => Ok(hash.into()),
        Err(unusable) => {
            Err(format!("--password-hash: {unusable}; a shell leaves $ alone only in single quotes").into())
        }
    }
}

/// The first line of standard input.
fn first_line() -> Result<String, String> {
    password_file::read_line(io::stdin()).map_err(|error| format!("standard input can't be read: {error}"))
}
