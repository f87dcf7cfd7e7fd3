//! What readers take from memory, and what is kept for them.

use super::*;
use crate::domain::todo::filter::{Filter, Needle};
use crate::store::map::select::{Selection, select};

fn search(f: &Fixture, text: &str) -> usize {
    let filter = Filter { text: Some(Needle::new(text)), ..Filter::default() };
    let view = f.view(UserId(1)).now_or_never().unwrap().unwrap();
    select(&view.todos, &Selection { filter, ..Selection::default() }).total
}

#[test]
fn what_is_kept_for_searches_is_forgotten_after_two_minutes() {
    let f = Fixture::new();
    f.apply(1, vec![create("milk"), create("bread")]).unwrap();
    assert_eq!(f.search_texts_size(), 0);
    assert_eq!((search(&f, "MILK"), search(&f, "i")), (1, 1));
    let kept = f.search_texts_size();
    assert!(kept > 0);
    for expected in [kept, 0] {
        f.a_minute_passes();
        // The writer has done that when this is answered.
        f.apply(2, vec![create("x")]).unwrap();
        assert_eq!(f.search_texts_size(), expected);
    }
    assert_eq!(search(&f, "bread"), 1);
}

#[test]
fn a_view_stays_as_it_was() {
    let f = Fixture::new();
    f.apply(1, (0..600).map(|n| create(&n.to_string())).collect()).unwrap();
    let view = f.view(UserId(1)).now_or_never().unwrap().unwrap();
    f.apply(1, vec![delete(1), delete(600)]).unwrap();
    f.apply(1, vec![create("new")]).unwrap();
    assert_eq!((view.revision.0, view.todos.count()), (600, 600));
    assert_eq!(view.todos.into_todos().map(|todo| todo.id.0).collect::<Vec<_>>(), (1..=600).collect::<Vec<_>>());
    assert_eq!(f.todos(1).len(), 599);
}
