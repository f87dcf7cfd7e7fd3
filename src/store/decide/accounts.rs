//! Decisions about accounts. They belong to the same groups as those about todos, so a todo can't be written for an
//! account that is gone by then.

use std::sync::Arc;

use super::{Decided, Group, Refusal, State};
use crate::domain::account::{AccountState, TokenEpoch, User, UserId};
use crate::store::{AccountCommand, AccountUpdate, Authority, Means, NewAccount};

impl<S: State> Group<'_, S> {
    /// What a command makes of its account. Passwords are hashed before, and bodies can come slowly: what allowed the
    /// command, its `authority`, may be over by now. None: nobody's token allows it, but the command line or a setting,
    /// or everybody may.
    pub fn decide_account(
        &mut self,
        authority: Option<Authority>,
        command: AccountCommand,
    ) -> Result<Arc<User>, Refusal> {
        let actor = authority.map(|authority| self.still_valid(authority)).transpose()?;
        let mut request = Decided::nothing(self.decided.next);
        let account = match command {
            AccountCommand::Create(new) => self.create_account(&mut request, new)?,
            AccountCommand::Rehash { id, old, new } => {
                let account = self.usable(id)?;
                if account.password_hash == old { User { password_hash: new, ..account } } else { account }
            }
            AccountCommand::Update(id, update) => {
                if update.password_hash.is_some() || update.enabled == Some(false) {
                    self.end_sessions(&mut request, id, None);
                }
                self.update_account(id, update)?
            }
            AccountCommand::ChangePassword { id, password_hash, keep } => {
                self.end_sessions(&mut request, id, keep);
                self.update_account(id, AccountUpdate { password_hash: Some(password_hash), ..Default::default() })?
            }
            AccountCommand::LogOut(id) => {
                self.end_sessions(&mut request, id, None);
                let account = self.usable(id)?;
                User { token_epoch: account.token_epoch.next(), ..account }
            }
            AccountCommand::Delete(id) => {
                self.end_sessions(&mut request, id, None);
                let account = self.usable(id)?;
                let by = Arc::clone(&actor.as_deref().unwrap_or(&account).username);
                deleted(account, by)
            }
        };
        if !account.is_active() {
            self.revoke_tokens(&mut request, account.id);
        }
        if !account.is_active_admin() {
            self.keep_an_admin(&account)?;
        }
        let account = Arc::new(account);
        request.accounts.insert(account.id, Arc::clone(&account));
        self.decided.merge(request);
        Ok(account)
    }

    fn create_account(&self, request: &mut Decided, new: NewAccount) -> Result<User, Refusal> {
        let username = new.username.into_text();
        if let Some(holder) = self.account_named(&username) {
            if self.exists(&holder) {
                return Err(Refusal::NameTaken);
            }
            // A demo user of an earlier run in development makes room.
            if holder.state != AccountState::Deleted {
                self.end_sessions(request, holder.id, None);
                self.revoke_tokens(request, holder.id);
                let gone = deleted(User::clone(&holder), Arc::clone(&holder.username));
                request.accounts.insert(gone.id, Arc::new(gone));
            }
        }
        let id = request.next.user;
        request.next.user = UserId(id.0 + 1);
        Ok(User {
            id,
            username,
            password_hash: new.password_hash,
            role: new.role,
            state: AccountState::Active,
            token_epoch: TokenEpoch::default(),
            created_at: self.facts.now,
            is_demo: false,
            deleted_by: None,
        })
    }

    fn update_account(&self, id: UserId, update: AccountUpdate) -> Result<User, Refusal> {
        let before = self.usable(id)?;
        let mut account = before.clone();
        account.role = update.role.unwrap_or(account.role);
        account.state = match update.enabled {
            Some(true) => AccountState::Active,
            Some(false) => AccountState::Disabled,
            None => account.state,
        };
        account.password_hash = update.password_hash.unwrap_or(account.password_hash);
        if account != before {
            account.token_epoch = account.token_epoch.next();
        }
        Ok(account)
    }

    /// An account that is not deleted.
    fn usable(&self, id: UserId) -> Result<User, Refusal> {
        let account = self.account(id).filter(|account| self.exists(account)).ok_or(Refusal::AccountNotFound)?;
        if account.state == AccountState::Deleted { Err(Refusal::AccountDeleted) } else { Ok(User::clone(&account)) }
    }

    /// The account whose token it is, if that is still valid.
    pub fn still_valid(&self, authority: Authority) -> Result<Arc<User>, Refusal> {
        let valid =
            |account: &Arc<User>| account.is_active() && self.exists(account) && account.token_epoch == authority.epoch;
        let account = self.account(authority.account).filter(valid).ok_or(Refusal::NoLongerAllowed)?;
        let now = self.facts.now;
        let is_there = match authority.means {
            Means::Login => true,
            Means::Session(id) => {
                self.session(id).is_some_and(|session| session.user == account.id && !session.is_expired(now))
            }
            Means::Personal(id) => self.personal_token(account.id, id).is_some_and(|token| !token.is_expired(now)),
        };
        if is_there { Ok(account) } else { Err(Refusal::NoLongerAllowed) }
    }

    /// Refuses what would take away the last admin; `account` is not an active admin from now on.
    fn keep_an_admin(&self, account: &User) -> Result<(), Refusal> {
        let is_admin = |user: &User| user.is_active_admin() && self.exists(user);
        let Some(before) = self.account(account.id).filter(|before| is_admin(before)) else { return Ok(()) };
        // There are no demo users in production, so they can't take the place of anybody else.
        let can_replace = |user: &User| user.id != account.id && is_admin(user) && (!user.is_demo || before.is_demo);
        let committed = self.state.active_admins();
        let unchanged = committed.iter().filter(|admin| !self.decided.accounts.contains_key(&admin.id));
        let mut admins = unchanged.chain(self.decided.accounts.values());
        if admins.any(|admin| can_replace(admin)) { Ok(()) } else { Err(Refusal::LastAdmin) }
    }

    pub(super) fn exists(&self, account: &User) -> bool {
        account.exists(self.facts.demo_users)
    }

    pub(super) fn account(&self, id: UserId) -> Option<Arc<User>> {
        self.decided.accounts.get(&id).cloned().or_else(|| self.state.account(id))
    }

    fn account_named(&self, username: &str) -> Option<Arc<User>> {
        let mut decided = self.decided.accounts.values().filter(|user| user.username.eq_ignore_ascii_case(username));
        // Of two with the same name, one is a demo user that made room.
        let decided = decided.clone().find(|user| self.exists(user)).or_else(|| decided.next());
        decided.cloned().or_else(|| self.state.account_named(username))
    }
}

fn deleted(account: User, by: Arc<str>) -> User {
    User {
        password_hash: "".into(),
        state: AccountState::Deleted,
        token_epoch: account.token_epoch.next(),
        deleted_by: Some(by),
        ..account
    }
}
