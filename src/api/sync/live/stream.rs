//! What a client that follows is sent, and when it ends. It takes as much as the client reads: what a slow one can't take is
//! read from the log later, so that no client costs more than another.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::frames::{Frames, Position};
use crate::api::error::ApiError;
use crate::api::per_user::Slot;
use crate::api::state::AppState;
use crate::api::sync::entry::Entry;
use crate::api::sync::log_broken_stream;
use crate::api::user::{self, AuthUser};
use crate::domain::account::UserId;
use crate::domain::change::{Change, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::sync_token::SyncToken;
use crate::store::feed::{Delivery, Follower, News, Stage};
use crate::store::history::{Gap, HistoryError, Limit};

/// How often a client hears that it is still connected, and its access is asked for.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events are sent together until they are so long, in bytes.
const CHUNK_LEN: usize = 4 << 10;
/// What is read from the log at once for a client that is behind.
const CATCH_UP: Limit = Limit { changes: 16, bytes: 8 << 10 };
/// When clients whose stream broke off connect again, in milliseconds: not all at once.
const RETRY: std::ops::RangeInclusive<u64> = 1000..=5000;

/// A client that follows an owner's changes.
pub struct Live {
    state: Arc<AppState>,
    /// With the token, which may be ended.
    request: HttpRequest,
    owner: UserId,
    news: Follower,
    /// The last change that was sent, or that the client had already.
    sent: Revision,
    /// There are changes after it that are only in the log.
    is_behind: bool,
    with_delivery: bool,
    heartbeat_due: Instant,
    expires_at: Option<Timestamp>,
    /// The first events, until they are sent.
    first: Option<Frames>,
    is_over: bool,
    _slot: Slot,
}

impl Live {
    /// Begins after what the client has: `since`, or all that there is.
    pub async fn begin(
        state: Arc<AppState>,
        request: HttpRequest,
        AuthUser { user, expires_at, .. }: AuthUser,
        slot: Slot,
        since: Option<SyncToken>,
        with_delivery: bool,
    ) -> Result<Self, ApiError> {
        let owner = user.id;
        let (news, head) = state.store.follow(owner).await?;
        // What is ended from now on is heard.
        if !user::is_still_allowed(&request).await? {
            return Err(ApiError::InvalidToken);
        }
        let known = since.map_or(Ok(head), |token| state.store.known(token, head));
        let mut live = Self {
            state,
            request,
            owner,
            news,
            sent: known.unwrap_or(head),
            is_behind: known.is_ok_and(|known| known < head),
            with_delivery,
            heartbeat_due: Instant::now() + HEARTBEAT,
            expires_at,
            first: None,
            is_over: false,
            _slot: slot,
        };
        live.state.metrics.streams.inc();
        let mut first = Frames::default();
        first.retry(retry());
        match known {
            Ok(_) => first.event(
                "ready",
                Position::At(live.position()),
                &json!({ "head": live.state.store.sync_token(head) }),
            )?,
            Err(gap) => live.reset(gap, &mut first)?,
        }
        live.first = Some(first);
        Ok(live)
    }

    /// The next events, once there are any; none after the last.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first.into_bytes());
        }
        let mut frames = Frames::default();
        while !self.is_over && frames.len() == 0 {
            if let Err(error) = self.fill(&mut frames).await {
                log_broken_stream(&error);
                self.end("unavailable", &mut frames);
            }
        }
        (frames.len() > 0).then(|| frames.into_bytes())
    }

    /// Waits for something to happen, and adds what there is to say about it.
    async fn fill(&mut self, frames: &mut Frames) -> Result<(), ApiError> {
        let stop = self.state.readiness.stop.clone();
        if stop.is_cancelled() {
            self.end("shutdown", frames);
            return Ok(());
        }
        if self.is_behind {
            return self.catch_up(frames).await;
        }
        let news = tokio::select! {
            // What is kept for a client that has not read for long is not heard after the end.
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep_until(self.due()) => return self.be_alive(frames).await,
            news = self.news.next() => news,
        };
        self.hear(news, frames).await?;
        while !self.is_over && !self.is_behind && frames.len() < CHUNK_LEN {
            let Some(news) = self.news.try_next() else { break };
            self.hear(news, frames).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, news: News, frames: &mut Frames) -> Result<(), ApiError> {
        match news {
            News::Changed(change) if change.revision <= self.sent => Ok(()),
            News::Changed(change) if change.revision == self.sent.next() => self.send(&change, frames),
            // Whether access was changed is asked when the log is read.
            News::Changed(_) | News::InLog => {
                self.is_behind = true;
                Ok(())
            }
            News::AccessChanged => self.check_access(frames).await,
            News::Delivered(delivery) if self.with_delivery => delivered(delivery, frames),
            News::Delivered(_) => Ok(()),
        }
    }

    fn send(&mut self, change: &Change, frames: &mut Frames) -> Result<(), ApiError> {
        frames.event(change.kind.name(), Position::At(SyncToken::of(change)), &Entry::of(change))?;
        self.sent = change.revision;
        Ok(())
    }

    /// Sends what is next in the log.
    async fn catch_up(&mut self, frames: &mut Frames) -> Result<(), ApiError> {
        let read = self.state.store.changes_since(self.owner, self.position(), false, CATCH_UP);
        let read = self.state.turns.during(self.owner, read).await;
        // Whoever is behind may be so for as long as they like. Only now: an end that was committed before what was read is known.
        self.check_access(frames).await?;
        if self.is_over {
            return Ok(());
        }
        match read {
            Ok(page) => {
                page.changes.iter().try_for_each(|change| self.send(change, frames))?;
                (self.sent, self.is_behind) = (page.through, page.more);
                Ok(())
            }
            Err(HistoryError::Gap(gap)) => self.reset(gap, frames),
            Err(error) => Err(error.into()),
        }
    }

    /// When something is to be done whatever happens.
    fn due(&self) -> Instant {
        let Some(expires_at) = self.expires_at else { return self.heartbeat_due };
        let left = expires_at.0.saturating_sub(self.state.clock.now().0);
        let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
        // A token can be valid for longer than a clock can count.
        Instant::now().checked_add(left).map_or(self.heartbeat_due, |expiry| expiry.min(self.heartbeat_due))
    }

    /// Ends with the token, or says that the stream has not ended.
    async fn be_alive(&mut self, frames: &mut Frames) -> Result<(), ApiError> {
        self.check_access(frames).await?;
        if !self.is_over && Instant::now() >= self.heartbeat_due {
            frames.event("heartbeat", Position::Same, &json!({}))?;
            self.heartbeat_due = Instant::now() + HEARTBEAT;
        }
        Ok(())
    }

    async fn check_access(&mut self, frames: &mut Frames) -> Result<(), ApiError> {
        if self.expires_at.is_some_and(|at| self.state.clock.now() >= at) {
            self.end("token_expired", frames);
        } else if !user::is_still_allowed(&self.request).await? {
            self.end("token_ended", frames);
        }
        Ok(())
    }

    fn reset(&mut self, gap: Gap, frames: &mut Frames) -> Result<(), ApiError> {
        self.state.metrics.stream_ended("reset");
        self.is_over = true;
        frames.event("reset", Position::Lost, &json!({ "reason": gap.name() }))
    }

    fn end(&mut self, reason: &'static str, frames: &mut Frames) {
        self.state.metrics.stream_ended(reason);
        self.is_over = true;
        frames.retry(retry());
        // A constant can be written.
        let _ = frames.event("end", Position::Same, &json!({ "reason": reason }));
    }

    fn position(&self) -> SyncToken {
        self.state.store.sync_token(self.sent)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.state.metrics.streams.dec();
    }
}

/// When this client connects again.
fn retry() -> Duration {
    Duration::from_millis(rand::random_range(RETRY))
}

fn delivered(Delivery { revision, stage, at }: Delivery, frames: &mut Frames) -> Result<(), ApiError> {
    let data = match stage {
        Stage::Published => json!({ "revision": revision, "published_at": at }),
        Stage::Delivered => json!({ "revision": revision, "delivered_at": at }),
    };
    frames.event("delivery", Position::Same, &data)
}
