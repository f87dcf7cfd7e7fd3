//! Bodies that can be large: a list of todos, whole if it is short, otherwise chunk by chunk, as the client reads it; and
//! what is there as a whole. Only so many of them are sent to a user at once.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BodyStream, BoxBody, MessageBody};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{empty, iter, unfold};
use serde::Serialize;
use tokio::task::yield_now;

use super::error::ApiError;
use super::per_user::{PerUser, Slot};
use crate::domain::account::UserId;

/// A chunk ends with the todo that makes it at least this long, in bytes.
pub const CHUNK_LEN: usize = 64 << 10;
/// Most lists of more than one chunk that are sent to one user at the same time.
const MAX_CONCURRENT: usize = 8;

/// Counts the lists of more than one chunk that are being sent to each user. Each keeps its todos in memory, as they
/// were, until the client has read it.
#[derive(Clone)]
pub struct LargeLists(PerUser);

/// A list that is being sent, until it is dropped.
pub type LargeList = Slot;

impl Default for LargeLists {
    fn default() -> Self {
        Self(PerUser::at_most(MAX_CONCURRENT))
    }
}

impl LargeLists {
    /// The body of an answer with `todos`, or [`ApiError::TooManyLists`]. HEAD has no content, and no limit.
    pub fn body<T: Serialize + 'static>(
        &self,
        user: UserId,
        todos: impl Iterator<Item = T> + 'static,
        with_content: bool,
    ) -> Result<BoxBody, ApiError> {
        let mut chunks = Chunks { todos, separator: Some(b'[') };
        let first = chunks.next().transpose();
        let first =
            first.map_err(|error| ApiError::internal("todos can't be written as JSON", error))?.unwrap_or_default();
        if chunks.separator.is_none() {
            return Ok(first.boxed());
        }
        if !with_content {
            // Of unknown length, as the answer to GET would be.
            return Ok(BodyStream::new(empty::<serde_json::Result<Bytes>>()).boxed());
        }
        let large = self.begin(user).ok_or(ApiError::TooManyLists)?;
        let rest = unfold((chunks, large), |(mut chunks, large)| async {
            // Other requests are served before the next chunk is built.
            yield_now().await;
            Some((chunks.next()?, (chunks, large)))
        });
        Ok(BodyStream::new(iter([Ok(first)]).chain(rest)).boxed())
    }

    /// A body that is there as a whole: if it is as long as a large list, it counts as one.
    pub fn json(&self, user: UserId, answer: &impl Serialize) -> Result<BoxBody, ApiError> {
        let body = serde_json::to_vec(answer);
        let body = body.map_err(|error| ApiError::internal("an answer can't be written as JSON", error))?;
        if body.len() < CHUNK_LEN {
            return Ok(body.boxed());
        }
        Ok(Counted::body(body, self.begin(user).ok_or(ApiError::TooManyLists)?))
    }

    /// What is counted as a large list until it is dropped; `None` if the user has reached the limit.
    pub fn begin(&self, user: UserId) -> Option<LargeList> {
        self.0.begin(user)
    }
}

/// A body that is there as a whole, and counts as a large list until it is sent.
pub struct Counted {
    body: Bytes,
    _large: LargeList,
}

impl Counted {
    /// `body`, if it is as large as a list that counts; otherwise it doesn't.
    pub fn body(body: Vec<u8>, large: LargeList) -> BoxBody {
        if body.len() < CHUNK_LEN { body.boxed() } else { Self { body: body.into(), _large: large }.boxed() }
    }
}

impl MessageBody for Counted {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// The JSON array of some todos, in chunks.
struct Chunks<I> {
    todos: I,
    /// The byte before the next todo; `None` after the end.
    separator: Option<u8>,
}

impl<I: Iterator<Item: Serialize>> Iterator for Chunks<I> {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut separator = self.separator.take()?;
        let mut json = Vec::new();
        while json.len() < CHUNK_LEN {
            let Some(todo) = self.todos.next() else {
                json.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
                return Some(Ok(json.into()));
            };
            json.push(separator);
            if let Err(error) = serde_json::to_writer(&mut json, &todo) {
                return Some(Err(error));
            }
            separator = b',';
        }
        self.separator = Some(separator);
        Some(Ok(json.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Timestamp;
    use crate::domain::todo::input::NewTodo;
    use crate::domain::todo::{Todo, TodoId};
    use actix_web::body::to_bytes;
    use std::future::poll_fn;
    use std::sync::Arc;

    const OWNER: UserId = UserId(1);

    /// Todos of about `size` bytes.
    fn todos(count: usize, size: usize) -> Vec<Arc<Todo>> {
        let todo = |id| {
            let new = NewTodo { title: "x".repeat(size - 120).into(), ..NewTodo::default() };
            new.create(TodoId(id), OWNER, Timestamp(0))
        };
        (1..).take(count).map(todo).map(Arc::new).collect()
    }

    #[actix_web::test]
    async fn a_list_is_the_same_json_whatever_its_size() {
        for (count, size) in [
            (0, 200),
            (1, 200),
            (2, 200),
            (1, CHUNK_LEN - 1),
            (1, CHUNK_LEN),
            (1, CHUNK_LEN + 9),
            (3, CHUNK_LEN),
            (5000, 200),
        ] {
            let todos = todos(count, size);
            let expected = serde_json::to_string(&todos).unwrap();
            let body = LargeLists::default().body(OWNER, todos.into_iter(), true).unwrap();
            let is_whole = matches!(body.size(), BodySize::Sized(_));
            assert_eq!(is_whole, expected.len() <= CHUNK_LEN, "{count} of {size}");
            assert_eq!(to_bytes(body).await.unwrap(), expected, "{count} of {size}");
        }
    }

    #[actix_web::test]
    async fn others_are_served_between_two_chunks() {
        let mut body = LargeLists::default().body(OWNER, todos(4, CHUNK_LEN).into_iter(), true).unwrap();
        let (mut chunks, mut pauses) = (0, 0);
        let mut next = |context: &mut Context<'_>| {
            let chunk = Pin::new(&mut body).poll_next(context);
            pauses += usize::from(chunk.is_pending());
            chunk
        };
        while poll_fn(&mut next).await.is_some() {
            chunks += 1;
        }
        // No pause before the first chunk, one before the end.
        assert_eq!((chunks, pauses), (5, 5));
    }

    #[actix_web::test]
    async fn only_so_many_large_lists_are_sent_to_a_user_at_once() {
        let lists = LargeLists::default();
        let (large, small) = (todos(2, CHUNK_LEN), todos(2, 200));
        let mut bodies: Vec<BoxBody> =
            (0..MAX_CONCURRENT).map(|_| lists.body(OWNER, large.clone().into_iter(), true).unwrap()).collect();
        let refused = || matches!(lists.body(OWNER, large.clone().into_iter(), true), Err(ApiError::TooManyLists));
        assert!(refused());
        // Other users, small lists and HEAD are not affected.
        lists.body(UserId(2), large.clone().into_iter(), true).unwrap();
        lists.body(OWNER, small.into_iter(), true).unwrap();
        lists.body(OWNER, large.clone().into_iter(), false).unwrap();
        assert!(refused());
        bodies.pop();
        bodies.push(lists.body(OWNER, large.clone().into_iter(), true).unwrap());
        assert!(refused());
        for body in bodies {
            to_bytes(body).await.unwrap();
        }
        assert_eq!(lists.0.count(OWNER), 0);
    }

    #[actix_web::test]
    async fn a_large_answer_counts_until_it_is_sent_and_a_small_one_does_not() {
        let lists = LargeLists::default();
        let body = |length| Counted::body(vec![b'x'; length], lists.begin(OWNER).unwrap());
        let small = body(CHUNK_LEN - 1);
        assert_eq!(lists.0.count(OWNER), 0);
        let large = body(CHUNK_LEN);
        assert_eq!((large.size(), lists.0.count(OWNER)), (BodySize::Sized(CHUNK_LEN as u64), 1));
        assert_eq!(to_bytes(large).await.unwrap().len(), CHUNK_LEN);
        assert_eq!(lists.0.count(OWNER), 0);
        drop(small);
        let _others: Vec<_> = (0..MAX_CONCURRENT).map(|_| lists.begin(OWNER).unwrap()).collect();
        // With its quotation marks.
        assert!(lists.json(OWNER, &"x".repeat(CHUNK_LEN - 3)).is_ok());
        assert!(matches!(lists.json(OWNER, &"x".repeat(CHUNK_LEN - 2)), Err(ApiError::TooManyLists)));
    }

    #[actix_web::test]
    async fn the_answer_to_head_is_without_the_list() {
        let lists = LargeLists::default();
        let body = lists.body(OWNER, todos(2, CHUNK_LEN).into_iter(), false).unwrap();
        assert_eq!((body.size(), to_bytes(body).await.unwrap().len()), (BodySize::Stream, 0));
    }
}
