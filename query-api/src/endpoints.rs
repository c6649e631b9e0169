//! The endpoints, one module for each kind of thing that is asked for.

pub(crate) mod calls;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod sessions;
pub(crate) mod timeline;
pub(crate) mod usage;
