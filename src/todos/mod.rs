//! Todos: what they are, how they are kept in memory, and their routes.

pub mod list;
pub mod map;
pub mod model;
pub mod routes;
