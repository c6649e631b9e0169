//! The endpoints, one module for each kind of thing that is asked for.

pub(crate) mod calls;
pub(crate) mod completeness;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod formats;
pub(crate) mod sessions;
pub(crate) mod timeline;
pub(crate) mod traces;
pub(crate) mod usage;
