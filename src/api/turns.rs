//! Turns of users at what takes time, such as selecting from many todos, or reading the log: whoever asks for much waits for
//! themselves.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::account::UserId;

/// Turns that a user has at the same time.
const MAX_CONCURRENT: usize = 2;
/// Users whose turns are over are forgotten once there are so many.
const MAX_REMEMBERED: usize = 1000;

/// The turns of all users.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<UserId, Weak<Semaphore>>>);

impl Turns {
    /// Waits for a turn, which is over when it is dropped. `None`: never, there are no turns any more.
    pub async fn take(&self, user: UserId) -> Option<OwnedSemaphorePermit> {
        self.of(user).acquire_owned().await.ok()
    }

    /// Does something in a turn of this user.
    pub async fn during<T>(&self, user: UserId, work: impl Future<Output = T>) -> T {
        let _turn = self.take(user).await;
        work.await
    }

    fn of(&self, user: UserId) -> Arc<Semaphore> {
        let mut turns = self.0.lock();
        if let Some(known) = turns.get(&user).and_then(Weak::upgrade) {
            return known;
        }
        if turns.len() >= MAX_REMEMBERED {
            turns.retain(|_, turns| turns.strong_count() > 0);
        }
        let new = Arc::new(Semaphore::new(MAX_CONCURRENT));
        turns.insert(user, Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_user_waits_for_their_own_turns_only() {
        let turns = Turns::default();
        let take = |user| turns.take(UserId(user)).now_or_never().flatten();
        let (first, second) = (take(1).unwrap(), take(1).unwrap());
        assert!(take(1).is_none());
        assert!(take(2).is_some());
        drop(second);
        let third = take(1).unwrap();
        assert!(take(1).is_none());
        drop((first, third));
        assert!(take(1).is_some());
    }

    #[test]
    fn users_are_forgotten_except_those_whose_turn_it_is() {
        let turns = Turns::default();
        let take = |user| turns.take(UserId(user)).now_or_never().flatten().unwrap();
        let turn = (take(1), take(1));
        (2..5000).for_each(|user| drop(take(user)));
        assert!(turns.0.lock().len() <= MAX_REMEMBERED);
        assert!(turns.take(UserId(1)).now_or_never().is_none());
        drop(turn);
    }
}
