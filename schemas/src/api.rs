//! The JSON form of an event that people and tools see.
