//! Wires the four services into one process; contains no logic.
