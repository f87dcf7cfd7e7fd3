//! The stream of committed changes, for those who follow an owner's. What a slow follower misses here is in the log.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::domain::account::UserId;
use crate::domain::change::{Change, Revision};
use crate::domain::clock::Timestamp;

/// News that are kept for the slowest follower of an owner.
const CAPACITY: usize = 16;
/// Longest texts of a todo that are kept with them, in bytes.
const MAX_TEXT_LEN: usize = 2 << 10;

/// What followers of an owner hear of.
#[derive(Debug, Clone)]
pub enum News {
    /// A change was committed. Those of an owner come in their order.
    Changed(Arc<Change>),
    /// A change's event has come somewhere. Not in the log, and not heard of again.
    Delivered(Delivery),
    /// Something about the account, its sessions or its tokens is different.
    AccessChanged,
    /// There are changes that are not kept here, but in the log: texts that are long, or news that were not heard in time. Access
    /// may be different, too.
    InLog,
}

/// How far a change's event has come.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// The change.
    pub revision: Revision,
    /// Where its event has come.
    pub stage: Stage,
    /// When.
    pub at: Timestamp,
}

/// A stage of a change's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The sidecar has taken it.
    Published,
    /// It has come back through the service's own subscription.
    Delivered,
}

/// Who follows whom. Costs nothing for an owner whom nobody follows.
#[derive(Debug, Default)]
pub struct Feed {
    owners: Mutex<HashMap<UserId, Sender<News>>>,
}

impl Feed {
    /// Follows an owner: everything that is told from now on is heard, or [`News::InLog`].
    pub(super) fn follow(self: &Arc<Self>, owner: UserId) -> Follower {
        let mut owners = self.owners.lock();
        let news = owners.entry(owner).or_insert_with(|| channel(CAPACITY).0).subscribe();
        Follower { news: Some(news), owner, feed: Arc::clone(self) }
    }

    /// Tells followers of changes that were committed.
    pub(super) fn committed(&self, changes: &[Arc<Change>]) {
        let owners = self.owners.lock();
        if owners.is_empty() {
            return;
        }
        for change in changes {
            if let Some(followers) = owners.get(&change.todo.owner) {
                let is_short = change.todo.text_len() <= MAX_TEXT_LEN;
                // Fails if the last one has just gone.
                let _ = followers.send(if is_short { News::Changed(Arc::clone(change)) } else { News::InLog });
            }
        }
    }

    /// Tells the followers of an owner something.
    pub(super) fn tell(&self, owner: UserId, news: News) {
        if let Some(followers) = self.owners.lock().get(&owner) {
            let _ = followers.send(news);
        }
    }
}

/// Hears the news of an owner.
#[derive(Debug)]
pub struct Follower {
    /// `None` only while it is dropped.
    news: Option<Receiver<News>>,
    owner: UserId,
    feed: Arc<Feed>,
}

impl Follower {
    /// Waits for the next news. Losing the wait loses no news.
    pub async fn next(&mut self) -> News {
        match &mut self.news {
            Some(news) => match news.recv().await {
                Ok(news) => news,
                Err(RecvError::Lagged(_)) => News::InLog,
                // The feed outlives its followers.
                Err(RecvError::Closed) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// The next news, if there are any.
    pub fn try_next(&mut self) -> Option<News> {
        match self.news.as_mut()?.try_recv() {
            Ok(news) => Some(news),
            Err(TryRecvError::Lagged(_)) => Some(News::InLog),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut owners = self.feed.owners.lock();
        self.news = None;
        if owners.get(&self.owner).is_some_and(|followers| followers.receiver_count() == 0) {
            owners.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn delivered(revision: i64) -> News {
        News::Delivered(Delivery { revision: Revision(revision), stage: Stage::Published, at: Timestamp(0) })
    }

    fn heard(follower: &mut Follower) -> Vec<String> {
        std::iter::from_fn(|| follower.try_next())
            .map(|news| match news {
                News::Delivered(delivery) => delivery.revision.to_string(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn each_follower_hears_all_news_of_their_owner_and_no_others() {
        let feed = Arc::new(Feed::default());
        feed.tell(UserId(1), delivered(1));
        let (mut first, mut other) = (feed.follow(UserId(1)), feed.follow(UserId(2)));
        feed.tell(UserId(1), delivered(2));
        let mut second = feed.follow(UserId(1));
        feed.tell(UserId(1), delivered(3));
        assert_eq!(heard(&mut first), ["2", "3"]);
        assert_eq!(heard(&mut second), ["3"]);
        assert!(heard(&mut other).is_empty());
        assert!(first.next().now_or_never().is_none());
    }

    #[test]
    fn who_does_not_listen_is_told_so_and_hears_what_was_kept() {
        let feed = Arc::new(Feed::default());
        let mut follower = feed.follow(UserId(1));
        (1..=100).for_each(|revision| feed.tell(UserId(1), delivered(revision)));
        let heard = heard(&mut follower);
        assert_eq!((heard[0].as_str(), heard[1].as_str(), heard.len()), ("InLog", "85", 1 + CAPACITY));
    }

    #[test]
    fn nothing_is_left_of_followers_that_are_gone() {
        let feed = Arc::new(Feed::default());
        let followers: Vec<_> = (0..8).map(|n| feed.follow(UserId(n % 2))).collect();
        assert_eq!(feed.owners.lock().len(), 2);
        std::thread::scope(|scope| followers.into_iter().for_each(|it| drop(scope.spawn(move || drop(it)))));
        assert!(feed.owners.lock().is_empty());
    }
}
